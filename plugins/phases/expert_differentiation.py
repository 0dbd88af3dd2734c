"""Stage 3, expert differentiation: clones become experts, with the load balanced while they do."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import Field

from ...core.data.source import PAPER_MIXTURE
from .criteria import GINI


@dataclass(frozen=True, slots=True, kw_only=True)
class ExpertDifferentiationConfig:
    """``steps`` in optimiser steps. ``balancing`` holds the load even by a ``loss``, or without a gradient by a
    ``bias`` that only changes which experts are selected. ``diversity`` weighs the loss that moves experts apart.
    ``mixture`` gives the domains' shares of the text (the paper's if not given)."""

    steps: Annotated[int, Field(ge=1)] = 600
    balancing: Literal["loss", "bias"] = "loss"
    diversity: Annotated[float, Field(ge=0.0)] = 1e-3
    mixture: Mapping[str, float] | None = None


class ExpertDifferentiation:
    """All experts train behind a top-1 router with the gate p / sg(p) (SPEC 2A.4).

    Balance 0.01 over the global batch (Qiu 2025, 2501.11873) and z-loss 1e-3 (Zoph 2022, 2202.08906); diversity 1e-3
    with the sign that moves experts apart: the original's pushes them together (SPEC E3.1). Completion: Gini of the
    load below 0.15 in training and on held-out text, no expert without tokens, text better predicted than by the
    clones.
    """

    def __init__(self, config: ExpertDifferentiationConfig) -> None:
        self.config = config

    def recipe(self, derived: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return the defaults of this phase."""
        config, mixture = self.config, dict(self.config.mixture or PAPER_MIXTURE)
        losses: dict[str, Any] = {"z": {"weight": 1e-3}}
        losses["balance" if config.balancing == "loss" else "loss-free-bias"] = {"weight": 0.01}
        if config.diversity:
            losses["diversity"] = {"weight": config.diversity}
        routing = {"use": "routing", "mixture": mixture}
        return {
            "steps": {
                "differentiate": {
                    "objective": "causal",
                    "view": "text",
                    "steps": config.steps,
                    "rows": derived["rows"],
                    "learning_rate": derived["learning_rate"] * 0.67,
                    "warmup": 0.05,
                    "schedule": "cosine",
                    "floor": 0.1,
                    "weight_decay": 0.1,
                    "batches": {"kind": "uniform", "mixture": mixture},
                    "losses": losses,
                }
            },
            "gates": {
                "gini-in-training": {**GINI, "paper": "< 0.15 in training"},
                "gini": {**routing, "metric": "gini", "at_most": 0.15},
                "no-dead-experts": {**routing, "metric": "dead", "at_most": 0},
                "similarity": {"use": "experts", "metric": "similarity", "at_most": 0.5},
                "better-than-clones": {
                    "use": "perplexity",
                    "metric": "nll",
                    "statistic": "difference",
                    "against": "parent",
                    "at_most": 0.0,
                },
                "knowledge": {"use": "choice", "metric": "acc", "at_least": 0.5},
            },
        }
