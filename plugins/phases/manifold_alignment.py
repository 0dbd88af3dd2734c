"""Stage 5, manifold alignment: a router on a torus for experts that no longer change."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import log
from typing import Annotated, Any

from pydantic import Field

from ...core.data.source import PAPER_MIXTURE
from .criteria import GINI, KNOWLEDGE_KEPT

#: All that is not a router.
FROZEN = ("attention", "embedding", "experts", "ffn", "head", "norm", "other")


@dataclass(frozen=True, slots=True, kw_only=True)
class ManifoldAlignmentConfig:
    """``steps`` in optimiser steps. ``router`` names the router that is put in place; with ``linear`` the phase is the
    control: a new linear router at equal tokens. ``final_temperature`` is where a torus ends that begins at 0.05.
    ``imitation`` is the share of the step over which the old router is imitated less and less. ``mixture`` gives the
    domains' shares of the text (the paper's if not given)."""

    steps: Annotated[int, Field(ge=1)] = 300
    router: str = "torus"
    final_temperature: Annotated[float, Field(gt=0.0)] = 0.005
    imitation: Annotated[float, Field(gt=0.0, le=1.0)] = 0.05
    mixture: Mapping[str, float] | None = None


class ManifoldAlignment:
    """The linear router is replaced by one on a torus, and it alone trains, positions included (SPEC 2A.8-2A.10).

    Experts are placed on a lattice by annealed swaps; the new router first imitates the old one, since frozen experts
    need the tokens that they were trained on. Losses: load variance as CV^2 with a gradient (E3.23), soft neighbours
    that move positions because experts are frozen (E3.22), geodesic smoothness, fold. Completion: Gini below 0.15,
    every expert reached, and what it costs in perplexity against the linear router.
    """

    def __init__(self, config: ManifoldAlignmentConfig) -> None:
        self.config = config

    def recipe(self, derived: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return the defaults of this phase."""
        config, mixture = self.config, dict(self.config.mixture or PAPER_MIXTURE)
        torus = config.router.rpartition(":")[2] == "torus"
        router: dict[str, Any] = {"use": config.router, "options": {"gate": "straight-through"}}
        if torus:
            router["options"]["final_temperature"] = config.final_temperature
        losses: dict[str, Any] = {
            "imitation": {"weight": {"start": 1.0, "end": 0.0, "over": config.imitation}},
            "load-variance": {"weight": 0.01},
        }
        if torus:
            losses |= {
                "expert-delta": {"weight": 0.1},
                "smooth": {"weight": 0.005},
                "fold": {"weight": 0.05},
            }
        routing = {"use": "routing", "mixture": mixture}
        gates: dict[str, Any] = {
            "gini-in-training": {**GINI, "paper": "< 0.15 in training"},
            "gini": {**routing, "metric": "gini", "at_most": 0.15},
            "unreached": {**routing, "metric": "dead", "at_most": 0},
            "against-old-router": {
                "use": "perplexity",
                "metric": "nll",
                "statistic": "difference",
                "against": "parent",
                "at_most": round(log(1.05), 4),
            },
            "same-expert": {"use": "torus", "metric": "same", "at_least": 0.3, "paper": "30 % assumed"},
            "delta-density": {
                "use": "experts",
                "metric": "density" if torus else "density_all",
                "at_most": 0.5,
                "paper": "10 % assumed",
            },
            "knowledge-kept": {
                **KNOWLEDGE_KEPT,
                "at_least": -0.05,
            },
        }
        if torus:
            gates["drift"] = {"use": "torus", "metric": "drift", "at_most": 0.25}
        return {
            "steps": {
                "place": {"objective": "reroute", "router": router},
                "align": {
                    "objective": "causal",
                    "view": "text",
                    "steps": config.steps,
                    "rows": derived["rows"],
                    "learning_rate": derived["learning_rate"] * 0.5,
                    "warmup": 0.05,
                    "schedule": "cosine",
                    "floor": 0.1,
                    "weight_decay": 0.0,
                    "freeze": list(FROZEN),
                    "batches": {"kind": "uniform", "mixture": mixture},
                    "losses": losses,
                },
            },
            "gates": gates,
        }
