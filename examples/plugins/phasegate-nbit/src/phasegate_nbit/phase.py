"""Consolidation: a trained mixture of experts learns to do with few bits what it does with many."""

from __future__ import annotations

from collections.abc import Mapping
from math import log
from typing import Any

from .options import ConsolidationConfig

# By distribution, so that no other package's component of that name is ever meant.
_DIST = "phasegate-nbit"


class Consolidation:
    """Quantization-aware training of the experts (Jacob 2018, 1712.05877): at 0, 30 and 60 % of the step 50, 75 and
    100 % of every matrix are quantized, so that the last two fifths train what is used later. Largest weights first:
    Zhou 2017, 1702.03044.

    The model of the phase before teaches: half cross-entropy, half KL from it (Liu 2023, LLM-QAT, 2305.17888). The
    learning rate is a tenth of what the size derives. Completion: perplexity within ``tolerance`` of the model before
    on the same documents, and as many questions answered but for one point in a hundred.
    """

    def __init__(self, config: ConsolidationConfig) -> None:
        self.config = config

    def recipe(self, derived: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return the defaults of this phase, as an experiment would write them."""
        config = self.config
        losses: dict[str, Any] = {}
        if config.consistency:
            losses["routing-consistency"] = {"use": f"{_DIST}:routing-consistency", "weight": config.consistency}
        return {
            "steps": {
                "consolidate": {
                    "objective": "distill",
                    "view": "text",
                    "steps": config.steps,
                    "rows": derived["rows"],
                    "learning_rate": derived["learning_rate"] * 0.1,
                    "warmup": 0.05,
                    "schedule": "cosine",
                    "floor": 0.1,
                    "weight_decay": 0.01,
                    "batches": {"kind": "uniform", "mixture": dict(config.mixture)},
                    "losses": losses,
                    "quantizer": {
                        "use": f"{_DIST}:nbit",
                        "bits": config.bits,
                        "events": [0.0, 0.3, 0.6],
                        "shares": [0.5, 0.75, 1.0],
                        "order": config.order,
                    },
                    "options": {"teacher": "parent", "share": 0.5},
                }
            },
            "gates": {
                "cost": {
                    "use": "perplexity",
                    "metric": "nll",
                    "statistic": "difference",
                    "against": "parent",
                    "at_most": round(log(1 + config.tolerance), 4),
                },
                "knowledge-kept": {
                    "use": "choice",
                    "metric": "acc",
                    "statistic": "difference",
                    "against": "parent",
                    "at_least": -0.01,
                },
            },
        }
