"""Has training levelled off? The trend of the loss over the end of a phase."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from ...evals.context import MeasureContext
from ...evals.intervals import t_quantile
from ...evals.measurement import Measurement
from .measuring import NotMeasured, or_missing

MINIMUM_POINTS = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class PlateauConfig:
    """Which logged value, ``key``, and the last share ``window`` of its steps that counts as the end."""

    key: str = "loss"
    window: float = 0.2


class PlateauGate:
    """Least-squares line through the logged loss over the last ``window`` of a phase's last step.

    Metrics: ``improvement`` (relative fall of the line from the window's first to its last step; a plateau is
    ``at_most`` a small share), ``slope`` (per step) and ``loss`` (mean over the window). Bounds come from the
    line's standard error with Student's quantile, taking the logged points as independent.
    """

    def __init__(self, config: PlateauConfig | None = None) -> None:
        self.config = config or PlateauConfig()

    def measure(self, ctx: MeasureContext) -> Mapping[str, Measurement]:
        return or_missing(("improvement", "slope", "loss"), lambda: self._measure(ctx))

    def _measure(self, ctx: MeasureContext) -> Mapping[str, Measurement]:
        from scipy.stats import linregress

        key = self.config.key
        points = _last_step([(float(e.get("step", i)), float(e[key])) for i, e in enumerate(ctx.history) if key in e])
        if not points:
            raise NotMeasured(f"the training log has no '{key}'")
        first, last = points[0][0], points[-1][0]
        window = [point for point in points if point[0] >= last - self.config.window * (last - first)]
        if len(window) < MINIMUM_POINTS:
            raise NotMeasured(
                f"the last {self.config.window:.0%} of the training log has {len(window)} values of '{key}', "
                f"{MINIMUM_POINTS} are needed: log more often"
            )
        steps, losses = [point[0] for point in window], [point[1] for point in window]
        if not all(map(math.isfinite, losses)):
            raise NotMeasured(f"'{key}' in the training log is not always a finite number")
        line = linregress(steps, losses)
        n, span = len(window), steps[-1] - steps[0]
        start = line.intercept + line.slope * steps[0]
        if start <= 0:
            raise NotMeasured(f"the line through '{key}' starts at {start:.3g}, so a relative fall has no meaning")
        reach = t_quantile(0.95, n - 2) * float(line.stderr)
        fall, fall_reach = -line.slope * span / start, reach * span / start
        mean = math.fsum(losses) / n
        return {
            "improvement": Measurement(
                metric="improvement", value=fall, n=n, interval=(fall - fall_reach, fall + fall_reach)
            ),
            "slope": Measurement(
                metric="slope", value=line.slope, n=n, interval=(line.slope - reach, line.slope + reach)
            ),
            "loss": Measurement(
                metric="loss", value=mean, n=n, per_document=dict(zip(map(str, steps), losses, strict=True))
            ),
        }


def _last_step(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """The points since the step count last began anew."""
    starts = [i for i in range(1, len(points)) if points[i][0] < points[i - 1][0]]
    return points[starts[-1] :] if starts else points
