"""Stage 1, the dense seed: what every expert will be cloned from, measured against attention before it is used."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any

from pydantic import Field

from ...core.config.shares import Mixture
from ...core.data.source import PAPER_MIXTURE


@dataclass(frozen=True, slots=True, kw_only=True)
class DenseSeedConfig:
    """``steps`` of pretraining in optimiser steps. With ``twin`` a model with attention in all layers is trained first,
    on the same rows in the same order, to compare with; ``twin_options`` are options of its model that differ, so that
    it has the same size. ``mixture`` weighs the domains (the paper's shares if not given)."""

    steps: Annotated[int, Field(ge=1)] = 1400
    twin: bool = True
    twin_options: Mapping[str, Any] = field(default_factory=dict)
    mixture: Mixture | None = None


class DenseSeed:
    """Next-token training of a dense model whose routed layers use the FFN of their block (SPEC 2A.3).

    6.83 B parameters are only possible where FFNs are shared, and only then is cloning them into experts exact. The
    original's schedule: cosine to a tenth, weight decay 0.1. Completion, from the original's stage 0: perplexity no
    worse than with attention, and the parallel form of the recurrence equal to the sequential one.
    """

    def __init__(self, config: DenseSeedConfig) -> None:
        self.config = config

    def recipe(self, derived: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return the defaults of this phase."""
        pretrain = {
            "objective": "causal",
            "view": "text",
            "steps": self.config.steps,
            "rows": derived["rows"],
            "learning_rate": derived["learning_rate"],
            "warmup": 0.02,
            "schedule": "cosine",
            "floor": 0.1,
            "weight_decay": 0.1,
            "batches": {"kind": "uniform", "mixture": dict(self.config.mixture or PAPER_MIXTURE)},
        }
        gates: dict[str, Any] = {
            "knowledge": {"use": "choice", "metric": "acc", "at_least": 0.5},
            "parallel-is-sequential": {"use": "recurrence", "metric": "max_difference", "at_most": 1e-3},
        }
        if not self.config.twin:
            return {"steps": {"pretrain": pretrain}, "gates": gates}
        against = {
            "use": "perplexity",
            "metric": "nll",
            "statistic": "difference",
            "against": "./twin",
            "at_most": 0.0,
            "paper": "<= perplexity at equal size",
        }
        twin = {**pretrain, "fresh": {"mixer": "attention", "options": dict(self.config.twin_options)}}
        return {
            "steps": {"twin": twin, "pretrain": {**pretrain, "fresh": {}}},
            "gates": {**gates, "against-attention": against},
        }
