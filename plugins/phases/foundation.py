"""Phase 1, foundation: a world model in the shared parameters, and experts that all stay in use."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import Field

from ...core.config.shares import Mixture
from ...core.data.source import PAPER_MIXTURE


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundationConfig:
    """``steps`` is the length of pretraining in optimiser steps; ``mixture`` defaults to the paper's shares."""

    steps: Annotated[int, Field(ge=1)] = 1400
    mixture: Mixture | None = None


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
        mixture = dict(self.config.mixture or PAPER_MIXTURE)
        load = {"use": "routing", "mixture": mixture, "paper": "8-14 %"}
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
                    "batches": {"kind": "uniform", "mixture": mixture},
                    "losses": {
                        "balance": {"weight": {"start": 0.05, "end": 0.01, "over": 0.5}},
                        "z": {"weight": 1e-3},
                    },
                }
            },
            "gates": {
                "knowledge": {"use": "choice", "metric": "acc", "at_least": 0.70, "paper": ">= 0.70"},
                "load-low": {**load, "metric": "load_min", "at_least": 0.08},
                "load-high": {**load, "metric": "load_max", "at_most": 0.14},
                "plateau": {
                    "use": "plateau",
                    "metric": "improvement",
                    "key": "loss/task",
                    "window": 0.1,
                    "at_most": 0.03,
                    "paper": "< 0.1 % per 1 B tokens",
                },
            },
        }
