"""Every metric after every phase, and what each phase changed in it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import replace
from fnmatch import fnmatchcase

from ...evals.estimates import of_pairs
from ...evals.measurement import Measurement
from ..config.schema import CriterionSection
from ..run.gates import gate_key
from ..run.store import Stage
from .evidence import Measured, value_of
from .facts import Capability, Change, Value

#: Each bound of a change, so that both together cover 95 %.
_CONFIDENCE = 0.975


def criteria_of(stage: Stage, at: str = "gates") -> dict[str, CriterionSection]:
    """The criteria of a stage's phase by name."""
    return {name: CriterionSection(**section) for name, section in stage.manifest["recipe"]["section"][at].items()}


def capabilities_of(
    stages: Mapping[str, Stage], evidence: Mapping[str, Mapping[str, Measured]]
) -> tuple[Capability, ...]:
    """Every metric that was measured anywhere, judged ones first, with its value after every phase and the change since
    the last phase after which it was measured."""
    named: dict[str, dict[str, CriterionSection]] = {}
    for stage in stages.values():
        for at in ("entry", "gates"):
            for name, section in criteria_of(stage, at).items():
                named.setdefault(gate_key(section), {})[name] = section
    keys = list(dict.fromkeys(key for measured in evidence.values() for key in measured))
    found = [one for key in keys for one in _rows(key, named.get(key, {}), keys, evidence)]
    return tuple(sorted(found, key=lambda one: not one.judged))


def _rows(
    key: str,
    criteria: Mapping[str, CriterionSection],
    keys: Iterable[str],
    evidence: Mapping[str, Mapping[str, Measured]],
) -> Iterable[Capability]:
    gate = key.rpartition("-")[0]
    alone = sum(other.rpartition("-")[0] == gate for other in keys) == 1
    metrics = dict.fromkeys(name for measured in evidence.values() for name in measured.get(key, {}))
    for metric in metrics:
        exact = sorted(name for name, section in criteria.items() if section.metric == metric)
        series = {phase: measured.get(key, {}).get(metric) for phase, measured in evidence.items()}
        yield Capability(
            gate=gate.removeprefix("phasegate-"),
            key=key,
            metric=metric,
            label="" if alone else ", ".join(exact or sorted(criteria)),
            higher=_higher(metric, criteria.values()),
            judged=bool(exact),
            values=tuple(_changes(series)),
        )


def _higher(metric: str, criteria: Iterable[CriterionSection]) -> bool | None:
    """Whether more of a metric is better, as far as criteria on it (or on what it is a part of) agree."""
    names = (metric, metric.partition("/")[0])
    sides = {
        bound is not None
        for one in criteria
        if any(fnmatchcase(name, one.metric) for name in names) and (one.at_least is None) != (one.at_most is None)
        for bound in (one.at_least,)
    }
    return sides.pop() if len(sides) == 1 else None


def _changes(series: Mapping[str, Measurement | None]) -> Iterable[Value | None]:
    last: tuple[str, Measurement] | None = None
    for phase, measured in series.items():
        value = value_of(measured)
        if measured is None or value is None or value.value is None:
            yield value
            continue
        yield value if last is None else replace(value, change=change_between(measured, last[1], last[0]))
        last = (phase, measured)


def change_between(new: Measurement, old: Measurement, since: str) -> Change:
    """The change from one measurement to another, paired where both are of the same documents."""
    # A share of answers that changes with the answers (those that were given) has other documents each time.
    same = new.per_document and new.per_document.keys() == old.per_document.keys()
    estimate = of_pairs("difference", new, old, _CONFIDENCE) if same else ""
    if isinstance(estimate, str) or not math.isfinite(estimate.low):
        return Change(since=since, value=new.value - old.value, low=None, high=None, resolved=False)
    return Change(
        since=since,
        value=estimate.value,
        low=estimate.low,
        high=estimate.high,
        resolved=estimate.low > 0 or estimate.high < 0,
    )
