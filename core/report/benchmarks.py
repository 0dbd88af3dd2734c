"""Benchmark results of a run's stages, as the store keeps them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from ..run.benchmarks import BenchmarkRecord, benchmarks_of
from ..run.store import Stage, Store
from ..run.targets import of_stage
from .evidence import value_of
from .facts import BenchmarkFacts, Value


def benchmarks_by_task(store: Store, stages: Mapping[str, Stage]) -> Iterable[BenchmarkFacts]:
    """Every metric of every benchmark that was run on a stage, by task and settings; the newest result counts where a
    stage has several."""
    found: dict[tuple[str, str], dict[str, BenchmarkRecord]] = {}
    for phase, stage in stages.items():
        for record in benchmarks_of(store, of_stage(stage).digest):
            found.setdefault((record.task, _settings(record)), {})[phase] = record
    for (task, settings), records in sorted(found.items()):
        values: dict[str, dict[str, Value | None]] = {}
        for phase, record in records.items():
            for metric, measured in record.measurements.items():
                values.setdefault(metric, {})[phase] = value_of(measured)
        counts = sorted({value.n for row in values.values() for value in row.values() if value is not None})
        for metric, row in (values or {"": {}}).items():
            yield BenchmarkFacts(
                task=task,
                settings=settings,
                metric=metric,
                documents=" to ".join(f"{one:,}" for one in dict.fromkeys((counts[0], counts[-1]))) if counts else "",
                values=tuple(row.get(phase) for phase in stages),
                missing=tuple(sorted({record.missing for record in records.values() if record.missing})),
            )


def _settings(record: BenchmarkRecord) -> str:
    """What tells results of one task apart; results of other settings are not to be compared."""
    drawn = "all documents" if record.documents is None else f"{record.documents:,} documents asked for"
    return f"{drawn}, batches of {record.batch_size}, {record.dtype}, seed {record.seed}"
