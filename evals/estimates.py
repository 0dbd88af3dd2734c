"""Estimates of a metric, alone or against a baseline, with what more documents could do for them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from .intervals import (
    documents_to_resolve,
    is_binary,
    mean_interval,
    paired_difference,
    rescale,
    wilson,
    win_rate,
    z_quantile,
)
from .measurement import Measurement


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """A value between one-sided bounds, over ``n`` documents; ``note`` tells how a comparison came about."""

    value: float
    low: float
    high: float
    n: int
    confidence: float
    proportion: bool = False
    exact: bool = False
    paired_binary: bool = False
    baseline: float | None = None
    p_value: float | None = None
    note: str = ""


def of_value(measured: Measurement, confidence: float) -> Estimate:
    """A metric by itself, with the interval of its kind or the one its gate gave."""
    value, n = measured.value, measured.n
    if measured.interval is not None:
        low, high = rescale(measured.interval, value, measured.interval_confidence, confidence)
        return Estimate(value=value, low=low, high=high, n=n, confidence=confidence)
    if measured.kind == "exact":
        return Estimate(value=value, low=value, high=value, n=n, confidence=confidence, exact=True)
    if measured.kind == "proportion":
        low, high = wilson(value * n, n, confidence)
        return Estimate(value=value, low=low, high=high, n=n, confidence=confidence, proportion=True)
    low, high = mean_interval(list(measured.per_document.values()), confidence)
    return Estimate(value=value, low=low, high=high, n=n, confidence=confidence)


def of_pairs(
    statistic: Literal["difference", "win_rate"], measured: Measurement, baseline: Measurement | None, confidence: float
) -> Estimate | str:
    """A metric against a baseline over the documents that both have, paired by hash; a reason where there are none."""
    if baseline is None:
        return "there is no baseline measurement to compare with"
    if baseline.missing is not None or not math.isfinite(baseline.value):
        return f"the baseline was not evaluated ({baseline.missing or 'its value is not a finite number'})"
    if statistic == "difference" and measured.kind == baseline.kind == "exact":
        value = measured.value - baseline.value
        return Estimate(
            value=value,
            low=value,
            high=value,
            n=measured.n,
            confidence=confidence,
            exact=True,
            baseline=baseline.value,
        )
    shared = sorted(measured.per_document.keys() & baseline.per_document.keys())
    if not shared:
        return "it shares no document with the baseline"
    new = [measured.per_document[key] for key in shared]
    old = [baseline.per_document[key] for key in shared]
    if not all(map(math.isfinite, new + old)):
        return "some documents have no finite value"
    left = len(measured.per_document.keys() ^ baseline.per_document.keys())
    note = f"; {left} documents have no partner" if left else ""
    paired = (paired_difference if statistic == "difference" else win_rate)(new, old, confidence)
    return Estimate(
        value=paired.value,
        low=paired.low,
        high=paired.high,
        n=paired.n,
        confidence=confidence,
        proportion=statistic == "win_rate",
        paired_binary=statistic == "difference" and is_binary(new) and is_binary(old),
        baseline=math.fsum(old) / len(old),
        p_value=paired.p_value,
        note=f"; {paired.gained} up, {paired.lost} down, {paired.ties} equal{note}",
    )


def needed(estimate: Estimate, at_least: float | None, at_most: float | None) -> int | None:
    """About how many documents would decide every open bound at the same effect; None where none would."""
    found = [
        documents_to_resolve(
            estimate.value,
            bound,
            (estimate.low, estimate.high),
            estimate.n,
            proportion=estimate.proportion,
            confidence=estimate.confidence,
        )
        for bound in (at_least, at_most)
        if bound is not None and estimate.low < bound < estimate.high
    ]
    known = [number for number in found if number is not None]
    return max(known) if known and len(known) == len(found) else None


def unresolvable(estimate: Estimate, at_least: float | None, at_most: float | None) -> str | None:
    """Says so where not even a perfect score could clear a bound with this many documents."""
    z, n = z_quantile(estimate.confidence), estimate.n
    if estimate.proportion:
        for share, word in ((at_least, "all"), (None if at_most is None else 1 - at_most, "none")):
            if share is not None and 0 < share < 1 and n / (n + z * z) < share:
                return (
                    f"the bound is tighter than {n} documents resolve: even {word} of them right would not clear it, "
                    f"{math.ceil(z * z * share / (1 - share))} could"
                )
    if estimate.paired_binary:
        for bound in (at_least, at_most):
            if bound is not None and 0 < abs(bound) < z * math.sqrt(2) / (n + 2):
                return (
                    f"the bound is tighter than {n} documents resolve: even without one changed answer it would not "
                    f"clear, {math.ceil(z * math.sqrt(2) / abs(bound) - 2)} documents could"
                )
    return None
