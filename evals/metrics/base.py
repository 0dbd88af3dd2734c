"""What the metrics share: typed inputs, in memory, and a bootstrap interval where one is asked for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import datasets
import evaluate
import numpy as np

from ..calibration import Array, resampled, spread
from ..intervals import z_quantile


class ConfidenceMetric(evaluate.Metric):
    """A metric of ``predictions`` (confidence or score per answer) against ``references`` (1 right, 0 wrong).

    By class, in memory: ``Auroc().compute(predictions=[...], references=[...])``. ``evaluate.load`` needs the hub for
    every name and is not used.
    """

    prediction = "float64"
    about = ""
    source = ""

    def __init__(self, **options: Any) -> None:
        super().__init__(**{"keep_in_memory": True, **options})

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description=self.about,
            citation=self.source,
            inputs_description=type(self).__doc__ or "",
            features=datasets.Features(
                {"predictions": datasets.Value(self.prediction), "references": datasets.Value("int64")}
            ),
        )


def with_interval(
    name: str,
    value: float,
    statistic: Callable[[Array], Array],
    documents: int,
    replicates: int,
    seed: int,
    groups: Sequence[Any] | None,
) -> dict[str, float]:
    """A value and, with ``replicates``, bounds at a one-sided confidence of 0.95 each.

    The interval is the value and 1.645 standard errors of the bootstrap on each side: percentiles would lie off the
    value of a statistic that, like a binned error, grows when documents repeat. ``groups`` are drawn as a whole.
    """
    if not replicates:
        return {name: value}
    members = np.arange(documents) if groups is None else groups
    half = z_quantile(0.95) * spread(statistic(resampled(members, replicates, seed)))
    return {name: value, f"{name}_low": value - half, f"{name}_high": value + half}
