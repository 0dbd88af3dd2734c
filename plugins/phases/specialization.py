"""Phase 2, specialization: experts come to own clusters of domains, and cross-domain ability survives."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import log
from typing import Any

from ...core.data.source import PAPER_MIXTURE
from .criteria import KNOWLEDGE_KEPT


@dataclass(frozen=True, slots=True, kw_only=True)
class SpecializationConfig:
    """``steps`` in optimiser steps; ``primary`` is the share of a batch's primary type (0.7 in the paper); ``mixture``
    gives the domains' shares of the text (the paper's if not given)."""

    steps: int = 350
    primary: float = 0.7
    mixture: Mapping[str, float] | None = None


class Specialization:
    """Domain-concentrated batches and a loss on the routing entropy of each domain.

    Concentrated batches alone leave the entropy where it was, so the loss holds each domain's hard-load
    entropy at 0.9-1.1 nats and the general one above 1.5, over a window of all batch types; a balance term inside one
    concentrated batch would spread each domain over all experts (Qiu 2025, 2501.11873). Targets in nats: domains
    0.8-1.2, general near 1.8; every expert 8-15 % of the tokens; cross-domain perplexity within 2 %. Entry: no dead
    expert, since one that receives no token cannot come to own a domain.
    """

    def __init__(self, config: SpecializationConfig) -> None:
        self.config = config

    def recipe(self, derived: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return the defaults of this phase."""
        mixture = dict(self.config.mixture or PAPER_MIXTURE)
        return {
            "steps": {
                "specialize": {
                    "objective": "causal",
                    "view": "text",
                    "steps": self.config.steps,
                    "rows": derived["rows"],
                    "learning_rate": derived["learning_rate"] * 0.375,
                    "warmup": 0.05,
                    "schedule": "linear",
                    "decay_from": 0.4,
                    "floor": 0.05,
                    "weight_decay": 0.01,
                    "learning_rate_scale": {"router": 2.0},
                    "batches": {
                        "kind": "concentrated",
                        "primary": self.config.primary,
                        "mixture": mixture,
                    },
                    "replay": {"share": 0.05},
                    "losses": {"domain-entropy": {"weight": 1.0}, "z": {"weight": 1e-3}},
                }
            },
            "entry": {"no-dead-experts": {"use": "routing", "mixture": mixture, "metric": "dead", "at_most": 0}},
            "gates": {
                **persistence(mixture),
                "cross-domain": {
                    "use": "perplexity",
                    "metric": "nll",
                    "statistic": "difference",
                    "against": "parent",
                    "at_most": round(log(1.02), 4),
                    "paper": "perplexity + 2 %",
                },
                "knowledge-kept": {
                    **KNOWLEDGE_KEPT,
                    "at_least": -0.02,
                },
            },
        }


def persistence(mixture: Mapping[str, float]) -> dict[str, Any]:
    """Return the criteria on routing that this phase must meet and that later phases must keep; the load is that of
    text in the proportions of ``mixture``."""
    domains = {"use": "routing", "metric": "entropy/*", "skip": ["entropy/general"], "mixture": dict(mixture)}
    routing = {"use": "routing", "mixture": dict(mixture)}
    return {
        "domain-entropy-low": {**domains, "at_least": 0.8, "paper": "0.8-1.2 nats"},
        "domain-entropy-high": {**domains, "at_most": 1.2, "paper": "0.8-1.2 nats"},
        "general-entropy": {**routing, "metric": "entropy/general", "at_least": 1.5, "paper": "~1.8 nats"},
        "load-low": {**routing, "metric": "load_min", "at_least": 0.08, "paper": "8-14 % (phase 1)"},
        "load-high": {**routing, "metric": "load_max", "at_most": 0.15, "paper": "8-14 % (phase 1)"},
    }
