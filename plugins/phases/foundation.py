"""Phase 1, foundation: a world model in the shared parameters, and experts that all stay in use."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

PAPER_MIXTURE = {
    "general": 0.45,
    "code": 0.18,
    "science": 0.12,
    "books": 0.10,
    "portuguese": 0.08,
    "mathematics": 0.04,
    "structured": 0.03,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundationConfig:
    """``steps`` is the length of pretraining in optimiser steps; ``mixture`` defaults to the paper's shares."""

    steps: int = 1400
    mixture: Mapping[str, float] | None = None


class Foundation:
    """Next-token training on the domain mixture with load balancing that starts high and decays.

    Balance alpha 0.01 and z-loss 1e-3 follow OLMoE (Muennighoff 2024, 2409.02060); the schedule from high to low
    follows the training explainer. Completion: loss plateau, every expert at 8-14 % of the tokens per layer,
    knowledge at 70 % or more on questions in phrasings that training never saw.
    """

    def __init__(self, config: FoundationConfig) -> None:
        self.config = config

    def recipe(self, derived: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return the defaults of this phase."""
        return {
            "steps": {
                "pretrain": {
                    "objective": "causal",
                    "view": "text",
                    "steps": self.config.steps,
                    "rows": derived["rows"],
                    "learning_rate": derived["learning_rate"],
                    "warmup": 0.02,
                    "schedule": "linear",
                    "decay_from": 0.4,
                    "floor": 0.05,
                    "weight_decay": 0.01,
                    "batches": {"kind": "uniform", "mixture": dict(self.config.mixture or PAPER_MIXTURE)},
                    "losses": {
                        "balance": {"weight": {"start": 0.05, "end": 0.01, "over": 0.5}},
                        "z": {"weight": 1e-3},
                    },
                }
            },
            "gates": {
                "knowledge": {"use": "choice", "metric": "acc", "at_least": 0.70, "paper": ">= 0.70"},
                "load-low": {"use": "routing", "metric": "load_min", "at_least": 0.08, "paper": "8-14 %"},
                "load-high": {"use": "routing", "metric": "load_max", "at_most": 0.14, "paper": "8-14 %"},
                "plateau": {
                    "use": "plateau",
                    "metric": "improvement",
                    "at_most": 0.01,
                    "paper": "< 0.1 % per 1 B tokens",
                },
            },
        }
