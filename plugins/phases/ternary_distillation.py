"""Stage 4, ternary distillation: experts of -1, 0 and 1 that say what the full-precision model says."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import log
from typing import Annotated, Any, Literal

from pydantic import Field

from ...core.data.source import PAPER_MIXTURE
from .criteria import GINI, KNOWLEDGE_KEPT


@dataclass(frozen=True, slots=True, kw_only=True)
class TernaryDistillationConfig:
    """``steps`` in optimiser steps. ``quantizer`` names the quantizer (null: none, as a control), ``order`` what of
    every matrix it takes first. ``teacher`` is an earlier stage, ``direction`` that of the divergence from it.
    ``mixture`` gives the domains' shares of the text (the paper's if not given)."""

    steps: Annotated[int, Field(ge=1)] = 600
    quantizer: str | None = "ternary"
    order: Literal["largest", "smallest", "soft"] = "largest"
    teacher: str = "parent"
    direction: Literal["forward", "reverse"] = "forward"
    mixture: Mapping[str, float] | None = None


class TernaryDistillation:
    """Experts are quantized by and by while the model learns from its full-precision self (SPEC 2A.6, 2A.7).

    Events at 0, 25, 50 and 75 % of the step, so that the last quarter trains all-ternary; the original's last event is
    on the last step (SPEC E3.19). The teacher is the MoE of the stage before, not the dense seed, which knows less
    (E3.26). Half cross-entropy, half forward KL (Hinton 2015, 1503.02531). Completion: perplexity within 10 % of the
    full-precision model, the load still even.
    """

    def __init__(self, config: TernaryDistillationConfig) -> None:
        self.config = config

    def recipe(self, derived: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return the defaults of this phase."""
        config, mixture = self.config, dict(self.config.mixture or PAPER_MIXTURE)
        step: dict[str, Any] = {
            "objective": "distill",
            "view": "text",
            "steps": config.steps,
            "rows": derived["rows"],
            "learning_rate": derived["learning_rate"] * 0.5,
            "warmup": 0.05,
            "schedule": "cosine",
            "floor": 0.1,
            "weight_decay": 0.01,
            "batches": {"kind": "uniform", "mixture": mixture},
            "losses": {"balance": {"weight": 0.01}, "z": {"weight": 1e-3}},
            "options": {"teacher": config.teacher, "direction": config.direction},
        }
        gates: dict[str, Any] = {
            "ternary-cost": {
                "use": "perplexity",
                "metric": "nll",
                "statistic": "difference",
                "against": "parent",
                "at_most": round(log(1.10), 4),
                "paper": "< 10 % relative perplexity",
            },
            "gini-in-training": {**GINI, "paper": "< 0.15 in training"},
            "no-dead-experts": {"use": "routing", "mixture": mixture, "metric": "dead", "at_most": 0},
            "knowledge-kept": {
                **KNOWLEDGE_KEPT,
                "at_least": -0.05,
                "paper": "-3 points on every benchmark",
            },
        }
        if config.quantizer is not None:
            step["quantizer"] = {"use": config.quantizer, "order": config.order}
            gates["zeros"] = {"use": "experts", "metric": "zeros", "at_most": 0.5, "paper": "~50 %"}
        return {"steps": {"distill": step}, "gates": gates}
