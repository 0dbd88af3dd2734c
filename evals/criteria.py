"""Criteria and verdicts: whether a measured metric clears its bound beyond its noise."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from fnmatch import fnmatchcase
from typing import Literal

from ..registry.errors import ConfigError
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

Verdict = Literal["pass", "fail", "undecided"]
Statistic = Literal["value", "difference", "win_rate"]

_ROUNDING = 1e-9
_ORDER: tuple[Verdict, ...] = ("pass", "undecided", "fail")


@dataclass(frozen=True, slots=True, kw_only=True)
class Criterion:
    """One inequality: a metric (or a pattern with ``*``), a bound and a one-sided confidence.

    ``skip`` names metrics, or the part behind their slash, that the pattern leaves out.
    ``difference`` is metric minus baseline over the same documents, ``win_rate`` the share of documents on which
    the metric is higher than the baseline's (ties half).
    """

    name: str
    metric: str
    skip: tuple[str, ...] = ()
    at_least: float | None = None
    at_most: float | None = None
    statistic: Statistic = "value"
    confidence: float = 0.95

    def __post_init__(self) -> None:
        if self.at_least is None and self.at_most is None:
            raise ConfigError(f"criterion '{self.name}' has no bound: give at_least or at_most.")
        if self.at_least is not None and self.at_most is not None and self.at_least > self.at_most:
            raise ConfigError(
                f"criterion '{self.name}' asks for at least {self.at_least:g} and at most {self.at_most:g}: swap them."
            )
        if not 0.5 <= self.confidence < 1:
            raise ConfigError(
                f"criterion '{self.name}' has confidence {self.confidence:g}: give a share from 0.5 up to below 1."
            )

    @property
    def bound(self) -> str:
        """The bound as it is shown to people."""
        if self.at_least is None:
            return f"≤ {self.at_most:g}"
        if self.at_most is None:
            return f"≥ {self.at_least:g}"
        return f"{self.at_least:g} … {self.at_most:g}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """One metric held against one criterion.

    ``low`` and ``high`` are one-sided bounds of ``value`` at the criterion's confidence; ``needed`` says about how
    many documents would decide an undecided one; ``baseline`` is the other side of a comparison, ``p_value``
    McNemar's exact one where documents can only gain or lose.
    """

    criterion: str
    metric: str
    statistic: Statistic
    value: float
    low: float
    high: float
    n: int
    bound: str
    verdict: Verdict
    reason: str
    confidence: float = 0.95
    baseline: float | None = None
    needed: int | None = None
    p_value: float | None = None
    chance: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Estimate:
    value: float
    low: float
    high: float
    n: int
    proportion: bool = False
    exact: bool = False
    paired_binary: bool = False
    baseline: float | None = None
    p_value: float | None = None
    note: str = ""


def judge(
    criterion: Criterion, measurements: Mapping[str, Measurement], baseline: Mapping[str, Measurement] | None = None
) -> tuple[Judgement, ...]:
    """Hold every matching metric against the criterion; a metric that was not evaluated never passes."""
    names = sorted(name for name in measurements if _matches(criterion, name))
    if not names:
        return (_not_evaluated(criterion, criterion.metric, _why_nothing(criterion, measurements)),)
    return tuple(_judge_one(criterion, measurements[name], (baseline or {}).get(name)) for name in names)


def combined(judgements: Iterable[Judgement]) -> Verdict:
    """The worst verdict: fail before undecided before pass; ``pass`` where nothing was asked."""
    return max((judgement.verdict for judgement in judgements), key=_ORDER.index, default="pass")


def _matches(criterion: Criterion, name: str) -> bool:
    if not fnmatchcase(name, criterion.metric):
        return False
    suffix = name.partition("/")[2]
    return not any(
        fnmatchcase(name, pattern) or (suffix and fnmatchcase(suffix, pattern)) for pattern in criterion.skip
    )


def _why_nothing(criterion: Criterion, measurements: Mapping[str, Measurement]) -> str:
    reasons = sorted({m.missing for m in measurements.values() if m.missing})
    if reasons:
        return "; ".join(reasons)
    near = get_close_matches(criterion.metric, list(measurements), n=1)
    hint = f", did you mean '{near[0]}'?" if near else f", only {', '.join(sorted(measurements)) or 'nothing'}"
    return f"the gate did not measure '{criterion.metric}'{hint}"


def _judge_one(criterion: Criterion, measured: Measurement, baseline: Measurement | None) -> Judgement:
    if measured.missing is not None or not math.isfinite(measured.value):
        return _not_evaluated(criterion, measured.metric, measured.missing or "its value is not a finite number")
    if criterion.statistic == "value":
        estimate: _Estimate | str = _of_value(measured, criterion.confidence)
    else:
        estimate = _of_pairs(criterion, measured, baseline)
    if isinstance(estimate, str):
        return _not_evaluated(criterion, measured.metric, estimate)
    verdict = _decide(criterion, estimate)
    needed = _needed(criterion, estimate) if verdict == "undecided" else None
    return Judgement(
        criterion=criterion.name,
        metric=measured.metric,
        statistic=criterion.statistic,
        value=estimate.value,
        low=estimate.low,
        high=estimate.high,
        n=estimate.n,
        bound=criterion.bound,
        verdict=verdict,
        reason=_reason(criterion, estimate, verdict, needed),
        confidence=criterion.confidence,
        baseline=estimate.baseline,
        needed=needed,
        p_value=estimate.p_value,
        chance=measured.chance,
    )


def _of_value(measured: Measurement, confidence: float) -> _Estimate:
    value, n = measured.value, measured.n
    if measured.interval is not None:
        low, high = rescale(measured.interval, value, measured.interval_confidence, confidence)
        return _Estimate(value=value, low=low, high=high, n=n)
    if measured.kind == "exact":
        return _Estimate(value=value, low=value, high=value, n=n, exact=True)
    if measured.kind == "proportion":
        low, high = wilson(value * n, n, confidence)
        return _Estimate(value=value, low=low, high=high, n=n, proportion=True)
    low, high = mean_interval(list(measured.per_document.values()), confidence)
    return _Estimate(value=value, low=low, high=high, n=n)


def _of_pairs(criterion: Criterion, measured: Measurement, baseline: Measurement | None) -> _Estimate | str:
    if baseline is None:
        return "there is no baseline measurement to compare with"
    if baseline.missing is not None or not math.isfinite(baseline.value):
        return f"the baseline was not evaluated ({baseline.missing or 'its value is not a finite number'})"
    if criterion.statistic == "difference" and measured.kind == baseline.kind == "exact":
        value = measured.value - baseline.value
        return _Estimate(value=value, low=value, high=value, n=measured.n, exact=True, baseline=baseline.value)
    shared = sorted(measured.per_document.keys() & baseline.per_document.keys())
    if not shared:
        return "it shares no document with the baseline"
    new = [measured.per_document[key] for key in shared]
    old = [baseline.per_document[key] for key in shared]
    if not all(map(math.isfinite, new + old)):
        return "some documents have no finite value"
    left = len(measured.per_document.keys() ^ baseline.per_document.keys())
    note = f"; {left} documents have no partner" if left else ""
    compare = paired_difference if criterion.statistic == "difference" else win_rate
    paired = compare(new, old, criterion.confidence)
    return _Estimate(
        value=paired.value,
        low=paired.low,
        high=paired.high,
        n=paired.n,
        proportion=criterion.statistic == "win_rate",
        paired_binary=criterion.statistic == "difference" and is_binary(new) and is_binary(old),
        baseline=sum(old) / len(old),
        p_value=paired.p_value,
        note=f"; {paired.gained} up, {paired.lost} down, {paired.ties} equal{note}",
    )


def _decide(criterion: Criterion, estimate: _Estimate) -> Verdict:
    verdicts: list[Verdict] = []
    if (bound := criterion.at_least) is not None:
        verdicts.append(_side(estimate.low - bound, estimate.high - bound))
    if (bound := criterion.at_most) is not None:
        verdicts.append(_side(bound - estimate.high, bound - estimate.low))
    return max(verdicts, key=_ORDER.index)


def _side(worst: float, best: float) -> Verdict:
    if worst >= -_ROUNDING:
        return "pass"
    return "fail" if best < -_ROUNDING else "undecided"


def _open_bounds(criterion: Criterion, estimate: _Estimate) -> list[float]:
    return [b for b in (criterion.at_least, criterion.at_most) if b is not None and estimate.low < b < estimate.high]


def _needed(criterion: Criterion, estimate: _Estimate) -> int | None:
    found = [
        documents_to_resolve(
            estimate.value,
            bound,
            (estimate.low, estimate.high),
            estimate.n,
            proportion=estimate.proportion,
            confidence=criterion.confidence,
        )
        for bound in _open_bounds(criterion, estimate)
    ]
    known = [number for number in found if number is not None]
    return max(known) if known and len(known) == len(found) else None


def _reason(criterion: Criterion, estimate: _Estimate, verdict: Verdict, needed: int | None) -> str:
    if estimate.exact:
        return f"{estimate.value:.4g} against {criterion.bound}, counted exactly"
    text = f"{estimate.value:.4g} [{estimate.low:.4g}, {estimate.high:.4g}] over {estimate.n} documents{estimate.note}"
    if verdict == "undecided":
        text += "; " + (_resolution(criterion, estimate) or _hint(needed))
    return text


def _hint(needed: int | None) -> str:
    if needed is None:
        return "too close to the bound to be resolved by more documents"
    return f"about {needed} documents would decide it at this effect"


def _resolution(criterion: Criterion, estimate: _Estimate) -> str | None:
    """Says so where not even a perfect score could clear the bound with this many documents."""
    z, n = z_quantile(criterion.confidence), estimate.n
    if estimate.proportion:
        shares = [(criterion.at_least, "all"), (None if criterion.at_most is None else 1 - criterion.at_most, "none")]
        for share, word in shares:
            if share is not None and 0 < share < 1 and n / (n + z * z) < share:
                return (
                    f"the bound is tighter than {n} documents resolve: even {word} of them right would not clear it, "
                    f"{math.ceil(z * z * share / (1 - share))} could"
                )
    if estimate.paired_binary:
        for bound in (criterion.at_least, criterion.at_most):
            if bound is not None and 0 < abs(bound) < z * math.sqrt(2) / (n + 2):
                return (
                    f"the bound is tighter than {n} documents resolve: even without one changed answer it would not "
                    f"clear, {math.ceil(z * math.sqrt(2) / abs(bound) - 2)} documents could"
                )
    return None


def _not_evaluated(criterion: Criterion, metric: str, reason: str) -> Judgement:
    return Judgement(
        criterion=criterion.name,
        metric=metric,
        statistic=criterion.statistic,
        value=math.nan,
        low=math.nan,
        high=math.nan,
        n=0,
        bound=criterion.bound,
        verdict="undecided",
        reason=f"not evaluated: {reason}",
        confidence=criterion.confidence,
    )
