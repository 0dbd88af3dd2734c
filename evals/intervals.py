"""Intervals and tests for proportions, means, paired differences and win rates.

``confidence`` belongs to each bound alone when ``sides`` is 1 (the two ends together then cover
``2 * confidence - 1``), and to the interval as a whole when ``sides`` is 2.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

Sides = Literal[1, 2]
Interval = tuple[float, float]


def z_quantile(confidence: float, sides: Sides = 1) -> float:
    """The standard normal quantile that belongs to a confidence."""
    from scipy.stats import norm

    return float(norm.ppf(_tail(confidence, sides)))


def t_quantile(confidence: float, freedom: float, sides: Sides = 1) -> float:
    """Student's quantile with ``freedom`` degrees of freedom."""
    from scipy.stats import t

    return float(t.ppf(_tail(confidence, sides), freedom))


def _tail(confidence: float, sides: Sides) -> float:
    if not 0.5 <= confidence < 1:
        raise ValueError(f"a confidence lies in [0.5, 1), not {confidence}")
    return confidence if sides == 1 else (1 + confidence) / 2


def wilson(successes: float, n: int, confidence: float = 0.95, sides: Sides = 1) -> Interval:
    """Score interval of a proportion (Wilson 1927, J. Am. Stat. Assoc. 22:209); ``successes`` may hold halves."""
    if n <= 0:
        return (0.0, 1.0)
    z = z_quantile(confidence, sides)
    p = successes / n
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    return (max(0.0, centre - half), min(1.0, centre + half))


def mean_interval(values: Sequence[float], confidence: float = 0.95, sides: Sides = 1) -> Interval:
    """Student's interval of a mean; infinite where fewer than two values leave the spread unknown."""
    if len(values) < 2:
        return (-math.inf, math.inf)
    array = np.asarray(values, dtype=np.float64)
    half = t_quantile(confidence, len(values) - 1, sides) * float(array.std(ddof=1)) / math.sqrt(len(values))
    centre = float(array.mean())
    return (centre - half, centre + half)


@dataclass(frozen=True, slots=True, kw_only=True)
class Paired:
    """A paired comparison over ``n`` documents; ``gained`` and ``lost`` count the documents that changed."""

    value: float
    low: float
    high: float
    n: int
    gained: int
    lost: int
    ties: int
    p_value: float | None = None


def paired_difference(new: Sequence[float], old: Sequence[float], confidence: float = 0.95, sides: Sides = 1) -> Paired:
    """Mean of ``new - old`` over the same documents, by Student's interval of the differences.

    Where every value is 0 or 1 the interval is the adjusted Wald one for paired proportions (Bonett and Price
    2012, J. Educ. Behav. Stat. 37:479), which keeps a width when no document changed, and ``p_value`` is
    McNemar's exact one.
    """
    differences = np.asarray(new, dtype=np.float64) - np.asarray(old, dtype=np.float64)
    n, gained, lost = len(differences), int((differences > 0).sum()), int((differences < 0).sum())
    value = float(differences.mean()) if n else math.nan
    if is_binary(new) and is_binary(old):
        low, high = _adjusted_wald(gained, lost, n, confidence, sides)
        p_value: float | None = mcnemar_exact(gained, lost)
    else:
        low, high = mean_interval(differences.tolist(), confidence, sides)
        p_value = None
    return Paired(
        value=value, low=low, high=high, n=n, gained=gained, lost=lost, ties=n - gained - lost, p_value=p_value
    )


def _adjusted_wald(gained: int, lost: int, n: int, confidence: float, sides: Sides) -> Interval:
    up, down = (gained + 1) / (n + 2), (lost + 1) / (n + 2)
    half = z_quantile(confidence, sides) * math.sqrt((up + down - (up - down) ** 2) / (n + 2))
    return (max(-1.0, up - down - half), min(1.0, up - down + half))


def mcnemar_exact(gained: int, lost: int) -> float:
    """Two-sided exact p of McNemar (1947, Psychometrika 12:153): are gains and losses equally likely?"""
    from scipy.stats import binomtest

    changed = gained + lost
    return 1.0 if changed == 0 else float(binomtest(gained, changed, 0.5).pvalue)


def win_rate(new: Sequence[float], old: Sequence[float], confidence: float = 0.95, sides: Sides = 1) -> Paired:
    """Share of documents on which ``new`` exceeds ``old``, ties counted half, by Wilson's interval."""
    differences = np.asarray(new, dtype=np.float64) - np.asarray(old, dtype=np.float64)
    n, won, lost = len(differences), int((differences > 0).sum()), int((differences < 0).sum())
    ties = n - won - lost
    low, high = wilson(won + ties / 2, n, confidence, sides)
    rate = (won + ties / 2) / n if n else math.nan
    return Paired(
        value=rate, low=low, high=high, n=n, gained=won, lost=lost, ties=ties, p_value=mcnemar_exact(won, lost)
    )


def rescale(interval: Interval, value: float, given: float, wanted: float) -> Interval:
    """Move one-sided bounds from one confidence to another by the ratio of normal quantiles."""
    if given == wanted:
        return interval
    ratio = z_quantile(wanted) / z_quantile(given)
    return (value - (value - interval[0]) * ratio, value + (interval[1] - value) * ratio)


def is_binary(values: Sequence[float]) -> bool:
    """Whether every value is exactly 0 or 1."""
    return all(value in (0.0, 1.0) for value in values)


def documents_to_resolve(
    value: float, bound: float, interval: Interval, n: int, *, proportion: bool, confidence: float
) -> int | None:
    """About how many documents would put ``bound`` outside the interval if the effect stayed the same.

    None where the effect is too close to the bound for any number below ten million.
    """
    limit = 10_000_000
    if math.isclose(value, bound, abs_tol=1e-9) or not math.isfinite(value):
        return None
    if not proportion:
        half = value - interval[0] if value > bound else interval[1] - value
        needed = math.ceil(n * (half / (value - bound)) ** 2) if math.isfinite(half) else limit
        return needed if needed < limit else None

    def resolved(documents: int) -> bool:
        low, high = wilson(value * documents, documents, confidence)
        return low >= bound if value > bound else high < bound

    if not resolved(limit):
        return None
    small, large = n, limit
    while large - small > 1:
        middle = (small + large) // 2
        small, large = (small, middle) if resolved(middle) else (middle, large)
    return large
