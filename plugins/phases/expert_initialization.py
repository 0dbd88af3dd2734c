"""Stage 2, expert initialization: clones of the seed's FFNs, exact at first, then told apart a little."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import log
from typing import Annotated, Any, Literal

from pydantic import Field

from .criteria import KNOWLEDGE_KEPT


@dataclass(frozen=True, slots=True, kw_only=True)
class ExpertInitializationConfig:
    """``breaker`` tells identical experts apart by re-initialising units (``drop``) or by noise, at ``strength`` (0.5
    and 0.01 if not given), which is halved until perplexity rises by no more than ``drift``. ``growth`` doubles the
    experts that often afterwards."""

    breaker: Literal["drop", "noise", "none"] = "drop"
    strength: Annotated[float, Field(gt=0.0, le=1.0)] | None = None
    drift: Annotated[float, Field(gt=0.0)] = 0.05
    growth: Annotated[int, Field(ge=0)] = 0


class ExpertInitialization:
    """Sparse upcycling (Komatsuzaki 2022, 2212.05055) with a symmetry breaker (Nakamura 2025, 2502.19261), and growth
    by duplication (Expert Upcycling 2026, 2604.19835).

    Nothing pushes identical experts apart, neither routing nor a diversity loss, against what the original says (SPEC
    E3.2, E3.3); only that each gets other tokens is left. Completion: logits equal to the seed's right after cloning,
    perplexity within 5 % after the breaker, knowledge kept.
    """

    def __init__(self, config: ExpertInitializationConfig) -> None:
        self.config = config

    def recipe(self, derived: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return the defaults of this phase."""
        config = self.config
        options: dict[str, Any] = {"breaker": config.breaker, "drift": config.drift}
        if config.strength is not None:
            options["strength"] = config.strength
        steps: dict[str, Any] = {"upcycle": {"objective": "upcycle", "options": options}}
        for number in range(config.growth):
            steps[f"grow-{number + 1}"] = {"objective": "grow", "options": {"drift": config.drift}}
        return {
            "steps": steps,
            "gates": {
                "clones-exact": {
                    "use": "logged",
                    "metric": "max",
                    "key": "upcycle/difference",
                    "at_most": 5e-5,
                    "paper": "copies of the FFN",
                },
                "drift": {
                    "use": "perplexity",
                    "metric": "nll",
                    "statistic": "difference",
                    "against": "parent",
                    "at_most": round(log(1 + config.drift), 4),
                },
                "knowledge-kept": {
                    **KNOWLEDGE_KEPT,
                    "at_least": -0.05,
                },
            },
        }
