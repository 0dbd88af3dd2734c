"""Options of the routers, apart from them so that a plan can check an experiment without importing torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True, kw_only=True)
class LinearRouterConfig:
    """How the chosen experts are weighed.

    ``softmax``: by their probabilities p (Fedus 2021, 2101.03961). ``normalized``: by p rescaled to sum 1 over the
    chosen; with top-1 that is the constant 1, and the task loss no longer reaches the router.
    ``straight-through``: p / sg(p), value 1 with the gradient kept, which preserves the function of cloned experts.
    """

    gate: Literal["normalized", "softmax", "straight-through"] = "softmax"
