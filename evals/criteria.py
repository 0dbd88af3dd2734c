"""Criteria and verdicts: whether a measured metric clears its bound beyond its noise."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from fnmatch import fnmatchcase
from typing import Literal

from ..registry.errors import ConfigError
from .estimates import Estimate, needed, of_pairs, of_value, unresolvable
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
        estimate: Estimate | str = of_value(measured, criterion.confidence)
    else:
        estimate = of_pairs(criterion.statistic, measured, baseline, criterion.confidence)
    if isinstance(estimate, str):
        return _not_evaluated(criterion, measured.metric, estimate)
    verdict = _decide(criterion, estimate)
    documents = needed(estimate, criterion.at_least, criterion.at_most) if verdict == "undecided" else None
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
        reason=_reason(criterion, estimate, verdict, documents),
        confidence=criterion.confidence,
        baseline=estimate.baseline,
        needed=documents,
        p_value=estimate.p_value,
        chance=measured.chance,
    )


def _decide(criterion: Criterion, estimate: Estimate) -> Verdict:
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


def _reason(criterion: Criterion, estimate: Estimate, verdict: Verdict, documents: int | None) -> str:
    if estimate.exact:
        return f"{estimate.value:.4g} against {criterion.bound}, counted exactly"
    text = f"{estimate.value:.4g} [{estimate.low:.4g}, {estimate.high:.4g}] over {estimate.n} documents{estimate.note}"
    if verdict != "undecided":
        return text
    if (limit := unresolvable(estimate, criterion.at_least, criterion.at_most)) is not None:
        return f"{text}; {limit}"
    if estimate.n < 2:
        return f"{text}; one document leaves the spread unknown"
    if documents is None:
        return f"{text}; too close to the bound to be resolved by more documents"
    return f"{text}; about {documents} documents would decide it at this effect"


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
