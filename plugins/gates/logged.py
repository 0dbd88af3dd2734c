"""A value that training logged, as a measurement: what only the training log knows."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

from ...evals.context import MeasureContext
from ...evals.measurement import Measurement
from .measuring import NotMeasured, or_missing

_METRICS = ("last", "mean", "max", "min")


@dataclass(frozen=True, slots=True, kw_only=True)
class LoggedConfig:
    """Which logged value, ``key``, and the last share ``window`` of the rows that have it."""

    key: str = "loss"
    window: Annotated[float, Field(gt=0.0, le=1.0)] = 1.0


class LoggedGate:
    """A value in the training log, over the last ``window`` of its rows in the last step of the phase that logged it.

    Metrics: ``last``, ``mean``, ``max`` and ``min``. They are exact: the log is all there is, and says nothing of what
    else might have been logged.
    """

    def __init__(self, config: LoggedConfig | None = None) -> None:
        self.config = config or LoggedConfig()

    def measure(self, ctx: MeasureContext) -> Mapping[str, Measurement]:
        return or_missing(_METRICS, lambda: self._measure(ctx))

    def _measure(self, ctx: MeasureContext) -> Mapping[str, Measurement]:
        key = self.config.key
        rows = [entry for entry in ctx.history if key in entry]
        if not rows:
            raise NotMeasured(f"the training log has no '{key}'")
        steps = [float(entry.get("step", place)) for place, entry in enumerate(rows)]
        anew = [place for place in range(1, len(rows)) if steps[place] < steps[place - 1]]
        values = [float(entry[key]) for entry in rows[anew[-1] if anew else 0 :]]
        values = values[-math.ceil(self.config.window * len(values)) :]
        if not all(map(math.isfinite, values)):
            raise NotMeasured(f"'{key}' in the training log is not always a finite number")
        found = (values[-1], math.fsum(values) / len(values), max(values), min(values))
        return {
            metric: Measurement(metric=metric, value=value, n=len(values), kind="exact")
            for metric, value in zip(_METRICS, found, strict=True)
        }
