"""From samples to measurements: a metric overall and per group of documents."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal

from .bridge import Sample
from .measurement import Measurement

Kind = Literal["proportion", "mean"]


def summarise(
    samples: Sequence[Sample],
    metrics: Mapping[str, Kind],
    *,
    by: Callable[[Sample], str] | None = None,
    chance: Callable[[Sample], float] | None = None,
    evidence: Mapping[str, Any] | None = None,
) -> dict[str, Measurement]:
    """Each metric over all samples, and as ``metric/group`` over the groups that ``by`` makes.

    A metric with a value that is no finite number is missing as a whole: a mean over the rest would hide it.
    """
    groups: dict[str, list[Sample]] = {"": list(samples)}
    if by is not None:
        for sample in samples:
            groups.setdefault(f"/{by(sample)}", []).append(sample)
    found = {}
    for metric, kind in metrics.items():
        for suffix, members in groups.items():
            name = metric + suffix
            found[name] = _measurement(name, metric, kind, members, chance, {} if suffix else dict(evidence or {}))
    return found


def mean_over_groups(name: str, parts: Iterable[Measurement], evidence: Mapping[str, Any]) -> Measurement:
    """Unweighted mean of group means, as lm-eval's groups report it; documents keep their values.

    Its interval takes the groups as given: it speaks of new documents, not of new groups.
    """
    members = list(parts)
    broken = next((part.missing for part in members if part.missing is not None), None)
    return Measurement(
        metric=name,
        value=math.nan if broken or not members else math.fsum(part.value for part in members) / len(members),
        n=sum(part.n for part in members),
        kind="proportion",
        per_document={f"{part.metric}:{key}": value for part in members for key, value in part.per_document.items()},
        chance=members[0].chance if members else None,
        missing=broken,
        evidence=evidence,
    )


def _measurement(
    name: str,
    metric: str,
    kind: Kind,
    samples: Sequence[Sample],
    chance: Callable[[Sample], float] | None,
    evidence: dict[str, Any],
) -> Measurement:
    values = {sample.hash: sample.metrics[metric] for sample in samples}
    broken = sum(not math.isfinite(value) for value in values.values())
    copies = sum(sample.copies - 1 for sample in samples)
    if copies:
        evidence["duplicates"] = copies
    return Measurement(
        metric=name,
        value=math.nan if broken or not values else math.fsum(values.values()) / len(values),
        n=len(values),
        kind=kind,
        per_document=values,
        chance=None if chance is None or not samples else math.fsum(map(chance, samples)) / len(samples),
        missing=f"{broken} of {len(values)} documents gave no finite value" if broken else None,
        evidence=evidence,
    )
