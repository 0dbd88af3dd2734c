"""Differences between curricula over seeds: intervals that know both the spread of seeds and that of documents."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

_SMALLEST = 1e-12  # p-values below are told as this


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """A mean of paired differences over seeds between two-sided bounds at 95 %, its p-value, and, once it was held
    together with all others of its table, whether it is ``resolved``. Bounds are None where one seed leaves the spread
    unknown. An interval without 0 that does not hold among all others is resolved "by itself only"."""

    value: float
    low: float | None
    high: float | None
    p: float | None
    n: int
    resolved: bool = False

    @property
    def words(self) -> str:
        """What may be said of it."""
        if self.low is None or self.high is None:
            return "one seed leaves the spread unknown"
        if self.resolved:
            return "resolved"
        return "by itself only" if self.low > 0 or self.high < 0 else "not resolved"


def difference(values: Sequence[float], document_variance: float = 0.0, confidence: float = 0.95) -> Difference:
    """Return the mean of one paired difference per seed.

    The squared half-width is that of Student's interval over seeds plus that of the documents, which all seeds share
    and which more seeds would not make smaller: ``document_variance`` is the variance of the mean over documents of
    the differences averaged over seeds.
    """
    from ...evals.intervals import t_quantile, z_quantile

    n = len(values)
    mean = math.fsum(values) / n
    if n < 2:
        return Difference(value=mean, low=None, high=None, p=None, n=n)
    variance = math.fsum((value - mean) ** 2 for value in values) / (n - 1)
    seeds, documents = math.sqrt(variance / n), math.sqrt(document_variance)
    half = math.hypot(t_quantile(confidence, n - 1, 2) * seeds, z_quantile(confidence, 2) * documents)
    return Difference(value=mean, low=mean - half, high=mean + half, p=_p_value(mean, seeds, documents, n), n=n)


def _p_value(mean: float, seeds: float, documents: float, n: int) -> float:
    """Two-sided: one less the confidence at which the interval of ``difference`` just touches 0."""
    from scipy.optimize import brentq
    from scipy.stats import norm, t

    if seeds == documents == 0:
        return 1.0 if mean == 0 else 0.0

    def beyond(p: float) -> float:
        return math.hypot(float(t.isf(p / 2, n - 1)) * seeds, float(norm.isf(p / 2)) * documents) - abs(mean)

    return _SMALLEST if beyond(_SMALLEST) < 0 else float(brentq(beyond, _SMALLEST, 1.0, xtol=1e-12))


def resolved(found: Mapping[str, Difference], level: float = 0.05) -> dict[str, Difference]:
    """Return the differences of one table with those marked that hold together (Holm 1979, Scand. J. Statist. 6:65):
    at most ``level`` is the chance that any one of them is none."""
    from dataclasses import replace

    tested = sorted((one.p, name) for name, one in found.items() if one.p is not None)
    kept: set[str] = set()
    for place, (p, name) in enumerate(tested):
        if p * (len(tested) - place) > level:
            break
        kept.add(name)
    return {name: replace(one, resolved=name in kept) for name, one in found.items()}


def paired_variance(new: Sequence[Mapping[str, float]], old: Sequence[Mapping[str, float]]) -> float | None:
    """Return the variance of the mean difference over the documents that all measurements share, of values by
    document, one mapping per seed; None where they share fewer than two."""
    shared = sorted(set.intersection(*(set(one) for one in (*new, *old)))) if new and old else []
    if len(shared) < 2:
        return None
    deltas = [
        math.fsum(one[key] for one in new) / len(new) - math.fsum(one[key] for one in old) / len(old) for key in shared
    ]
    mean = math.fsum(deltas) / len(deltas)
    return math.fsum((delta - mean) ** 2 for delta in deltas) / (len(deltas) - 1) / len(deltas)
