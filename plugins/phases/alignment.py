"""Phase 3, alignment: instructions, then preferences, at no more than two points of knowledge."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ...core.data.source import PAPER_MIXTURE
from .criteria import KNOWLEDGE_KEPT
from .specialization import persistence


@dataclass(frozen=True, slots=True, kw_only=True)
class AlignmentConfig:
    """Lengths of supervised fine-tuning (``sft_steps``) and of preference optimisation (``dpo_steps``) in optimiser
    steps, and how specialization is kept: ``hold_specialists`` keeps the routing loss on the replayed rows. ``mixture``
    weighs the domains when the load is measured (the paper's shares if not given)."""

    sft_steps: int = 1200
    dpo_steps: int = 120
    hold_specialists: bool = True
    mixture: Mapping[str, float] | None = None


class Alignment:
    """Supervised fine-tuning on answers only, then DPO (Rafailov 2023, 2305.18290) against the fine-tuned model.

    Mitigations of the alignment tax: a pretraining-mix loss on replayed rows (InstructGPT, Ouyang 2022, 2203.02155),
    frozen routers, the likelihood term on chosen answers (Pang 2024, 2404.19733) and replayed chats in DPO.
    Completion: verifiable format accuracy, knowledge loss of at most 2 points on the same questions, a win rate of 70 %
    over the model before DPO, by implicit reward and by sampled answers judged against ground truth. Entry: the
    knowledge that the first phase asks for, since alignment shapes answers and teaches no facts.
    """

    def __init__(self, config: AlignmentConfig) -> None:
        self.config = config

    def recipe(self, derived: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return the defaults of this phase."""
        hold = {"domain-entropy": {"weight": 1.0}} if self.config.hold_specialists else {}
        return {
            "steps": {
                "sft": {
                    "objective": "sft",
                    "view": "chat",
                    "steps": self.config.sft_steps,
                    "rows": 2 * derived["rows"],
                    "learning_rate": derived["learning_rate"] * 0.5,
                    "warmup": 0.03,
                    "schedule": "linear",
                    "decay_from": 0.4,
                    "floor": 0.05,
                    "weight_decay": 0.01,
                    "freeze": ["router"],
                    "replay": {"rows": 7, "weight": 0.25, "routing": "replayed"},
                    "losses": dict(hold),
                },
                "dpo": {
                    "objective": "dpo",
                    "view": "preference",
                    "steps": self.config.dpo_steps,
                    "rows": 24,
                    "learning_rate": derived["learning_rate"] * 0.075,
                    "warmup": 0.1,
                    "schedule": "linear",
                    "decay_from": 0.4,
                    "floor": 0.05,
                    "weight_decay": 0.01,
                    "freeze": ["router"],
                    "options": {"beta": 0.1, "nll": 0.3},
                    "replay": {"rows": 31, "weight": 1.0, "chat": 0.77, "routing": "replayed"},
                    "losses": dict(hold),
                },
            },
            "entry": {"knowledge": {"use": "choice", "metric": "acc", "at_least": 0.70, "paper": ">= 0.70"}},
            "gates": {
                "format": {"use": "format", "metric": "acc", "at_least": 0.95, "paper": "IFEval >= 0.95"},
                "knowledge-kept": {
                    **KNOWLEDGE_KEPT,
                    "at_least": -0.02,
                    "paper": "<= 2 points lost",
                },
                "preference": {
                    "use": "preference",
                    "metric": "margin",
                    "statistic": "win_rate",
                    "against": "./sft",
                    "at_least": 0.70,
                    "paper": ">= 0.70",
                },
                "judge": {
                    "use": "judge",
                    "metric": "score",
                    "statistic": "win_rate",
                    "against": "./sft",
                    "at_least": 0.60,
                    "paper": ">= 0.70",
                },
                **persistence(self.config.mixture or PAPER_MIXTURE),
            },
        }
