"""Phase 5, metacognition: the model learns to say how sure it is, and to withhold what it does not know."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import Field

from ...core.data.source import PAPER_MIXTURE

#: The paper's weights are for medicine (10), law (8) and all else (2); of the paper's own mixture, science stands for
#: the first (what is so can be looked up, and acting on a wrong answer harms), structured data for the second.
STAND_INS: Mapping[str, float] = {
    domain: {"science": 10.0, "structured": 8.0}.get(domain, 2.0) for domain in PAPER_MIXTURE
}


@dataclass(frozen=True, slots=True, kw_only=True)
class MetacognitionConfig:
    """``penalties`` gives every domain of the questions the weight of a wrong answer (a right one weighs 1);
    ``questions`` caps how many are posed, ``rows`` how many at a time; ``sampled`` adds answers drawn at
    temperature 1 to the greedy one."""

    penalties: Mapping[str, Annotated[float, Field(gt=0.0)]] | None = None
    questions: Annotated[int, Field(ge=2)] | None = 4000
    rows: Annotated[int, Field(ge=1)] = 64
    sampled: Annotated[int, Field(ge=0)] = 1


class Metacognition:
    """Linear probes at a third, two thirds and the end of the depth, on frozen states (Azaria and Mitchell 2023,
    2304.13734; Kadavath 2022, 2207.05221), fitted to the model's own answers with the paper's asymmetric loss.

    No weight of the model changes, so what earlier phases reached stands and is not measured again. The paper's error
    of calibration belongs to inverted and scaled confidence: its loss asks for p / (p + w (1 - p)), which is not one.
    Its coverage is that of right answers, since in a set of questions that half have no answer, to withhold is right.
    Another training of the same probes would give the same bits, so nothing is extended.
    """

    def __init__(self, config: MetacognitionConfig) -> None:
        self.config = config

    def recipe(self, derived: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return the defaults of this phase."""
        penalties = dict(STAND_INS if self.config.penalties is None else self.config.penalties)
        strictest = max(sorted(penalties), key=penalties.__getitem__) if penalties else None
        confident = f"confident_wrong/{strictest}" if strictest else "confident_wrong"
        gate = {"use": "calibration"}
        return {
            "steps": {
                "probes": {
                    "objective": "probes",
                    "view": "unknown",
                    "rows": self.config.rows,
                    "options": {
                        "penalties": penalties,
                        "questions": self.config.questions,
                        "sampled": self.config.sampled,
                    },
                }
            },
            "gates": {
                "calibrated": {**gate, "metric": "ece", "at_most": 0.03, "paper": "ECE <= 0.03 (claimed 0.021)"},
                "discriminates": {**gate, "metric": "auroc", "at_least": 0.80, "paper": ">= 0.80"},
                "confident-wrong": {**gate, "metric": confident, "at_most": 0.01, "paper": "<= 1 % (medical)"},
                "coverage": {**gate, "metric": "coverage_right", "at_least": 0.80, "paper": ">= 0.80"},
                "justified": {**gate, "metric": "justified", "at_least": 0.94, "paper": "0.94 (claimed)"},
                "beats-softmax": {**gate, "metric": "auroc_gain", "at_least": 0.0},
                "beats-softmax-selecting": {**gate, "metric": "aurc_gain", "at_least": 0.0},
            },
            "policy": {"extensions": 0},
        }
