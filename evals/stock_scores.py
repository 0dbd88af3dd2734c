"""From a stock task's samples to measurements: the task's own metrics, over all documents and by member."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from .bridge import Sample
from .intervals import mean_interval
from .measurement import Measurement
from .stock_tasks import Reading, StockTask
from .summary import mean_over_groups, summarise


def measure_stock(
    task: StockTask,
    samples: Mapping[str, Sequence[Sample]],
    categories: Mapping[str, str],
    evidence: Mapping[str, Any],
) -> dict[str, Measurement]:
    """Each metric of ``task``; for a group also as ``metric/member``, and ``metric/category`` where members have one.

    ``samples`` are those of each member, and of the one task where it is no group.
    """
    found: dict[str, Measurement] = {}
    for metric, reading in task.metrics.items():
        if task.member is None:
            (only,) = samples.values()
            found[metric] = _read(metric, metric, reading, only, task.chance, evidence)
            continue
        parts = {
            name: _read(f"{metric}/{name}", metric, reading, members, task.chance, {})
            for name, members in samples.items()
        }
        together = _over_documents if task.weighted else mean_over_groups
        found[metric] = together(metric, parts.values(), evidence)
        for category in sorted({categories[name] for name in parts if name in categories}):
            inside = [part for name, part in parts.items() if categories.get(name) == category]
            found[f"{metric}/{category}"] = together(f"{metric}/{category}", inside, {})
        found |= {part.metric: part for part in parts.values()}
    return found


def _read(
    name: str,
    metric: str,
    reading: Reading,
    samples: Sequence[Sample],
    chance: Callable[[Mapping[str, Any]], float] | None,
    evidence: Mapping[str, Any],
) -> Measurement:
    plain = summarise(
        samples,
        {metric: "proportion" if reading == "proportion" else "mean"},
        chance=None if chance is None else lambda sample: chance(sample.doc),
        evidence=evidence,
    )[metric]
    if reading == "perplexity":
        plain = _perplexity(plain)
    elif reading == "instructions":
        plain = _per_instruction(plain, samples)
    return replace(plain, metric=name)


def _perplexity(mean: Measurement) -> Measurement:
    """exp of the negative mean log-likelihood and of its bounds; each keeps its confidence, exp being monotonic."""
    low, high = mean_interval([-value for value in mean.per_document.values()])
    known = mean.missing is None and math.isfinite(mean.value)
    return replace(
        mean,
        value=math.exp(-mean.value) if known else math.nan,
        per_document={},
        interval=(math.exp(low), math.exp(high)) if known and math.isfinite(high) else None,
    )


def _per_instruction(mean: Measurement, samples: Sequence[Sample]) -> Measurement:
    """The share of all instructions that were followed, where ``mean`` is over documents.

    A document weighs as its instructions do, so that the mean of the values is the share; instructions of one
    document hang together, which is why the interval is that of documents.
    """
    counts = {sample.hash: len(sample.doc["instruction_id_list"]) for sample in samples}
    each = math.fsum(counts.values()) / len(counts) if counts else math.nan
    values = {key: value * counts[key] / each for key, value in mean.per_document.items()}
    return replace(
        mean,
        value=math.fsum(values.values()) / len(values) if values and mean.missing is None else math.nan,
        per_document=values,
    )


def _over_documents(name: str, parts: Iterable[Measurement], evidence: Mapping[str, Any]) -> Measurement:
    """A group's metric over all its documents, which lm-eval calls weighted by size."""
    members = list(parts)
    total = sum(part.n for part in members)
    even = mean_over_groups(name, members, evidence)
    weighed = math.fsum(part.value * part.n for part in members) / total if total else math.nan
    chances = [part.chance * part.n for part in members if part.chance is not None]
    return replace(
        even,
        value=math.nan if even.missing else weighed,
        chance=math.fsum(chances) / total if len(chances) == len(members) and total else None,
    )
