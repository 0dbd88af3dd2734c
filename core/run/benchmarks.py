"""Benchmark results in the store: each under the key of all that decides it, found again, and compared in pairs."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ...evals.estimates import Estimate, of_pairs, of_value
from ...evals.intervals import rescale
from ...evals.measurement import Measurement
from ...evals.records import measurement_from_json, measurement_to_json
from ...registry.atomic import read_json, reporting, write_text
from ...registry.errors import StoreError
from .fingerprint import digest
from .store import Store

FORMAT = 1
FOLDER = "benchmarks"

# One-sided bounds with this confidence are a two-sided interval of 95 %.
_EACH_SIDE = 0.975
_KEYS = ("task", "config", "batch_size", "documents", "dtype", "max_length", "seed")


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchmarkRecord:
    """What a benchmark gave on a model, with all that decided it; ``missing`` says why where it gave nothing.

    ``model`` has the name it was measured under and the digest of its content, ``data`` the file, its SHA-256, its rows
    and what was drawn of them, ``versions`` of libraries, ``config`` is the digest of the task's configuration.
    ``dtype`` is the one that was computed in, ``cached`` whether it was found in the store.
    """

    key: str
    task: str
    model: Mapping[str, str]
    config: str
    data: Mapping[str, Any]
    versions: Mapping[str, Any]
    batch_size: int
    dtype: str
    documents: int | None
    seed: int
    max_length: int | None
    created: str
    missing: str | None = None
    measurements: Mapping[str, Measurement] = field(default_factory=dict)
    cached: bool = False


def key_of(identity: Mapping[str, Any]) -> str:
    """The name of a result: the first 32 hex digits of the digest of all that decides it."""
    return digest(identity).partition(":")[2][:32]


def file_of(store: Store, key: str) -> Path:
    """Where the result with this key lies."""
    return store.root / FOLDER / f"{key}.json"


def now() -> str:
    """The time as records hold it, in UTC."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def write_record(store: Store, record: BenchmarkRecord) -> Path:
    """Put a result into the store, whole or not at all; of two processes that write one key the later one stays."""
    path = file_of(store, record.key)
    content = {
        "format": FORMAT,
        "key": record.key,
        "model": dict(record.model),
        "data": dict(record.data),
        "versions": dict(record.versions),
        "created": record.created,
        "missing": record.missing,
        "measurements": {name: measurement_to_json(found) for name, found in sorted(record.measurements.items())},
        **{name: getattr(record, name) for name in _KEYS},
    }
    with reporting("the result of a benchmark", path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, json.dumps(content | {"checksum": _checksum(content)}, indent=1, allow_nan=False) + "\n")
    return path


def read_record(store: Store, key: str) -> BenchmarkRecord | None:
    """The result with this key, or None; ``StoreError`` naming the file where it is damaged or of another format."""
    path = file_of(store, key)
    return _read(path) if path.exists() else None


def benchmarks_of(store: Store, digest: str) -> list[BenchmarkRecord]:
    """Every result on the model with this content digest (see ``targets.of_stage``), by task, then by time.

    ``StoreError`` naming the first file that is damaged.
    """
    records = [_read(path) for path in sorted((store.root / FOLDER).glob("*.json")) if not path.name.startswith(".")]
    return sorted(
        (record for record in records if record.model["digest"] == digest),
        key=lambda record: (record.task, record.created, record.key),
    )


def _read(path: Path) -> BenchmarkRecord:
    content = read_json(path, "a benchmark's result")
    if content.get("format") != FORMAT:
        raise StoreError(
            f"{path} has format {content.get('format')!r}, this version reads {FORMAT}; use another store or the "
            "version that wrote it"
        )
    sealed = content.pop("checksum", None)
    if sealed != _checksum(content) or content.get("key") != path.stem:
        raise StoreError(
            f"{path} is not what was written: it was changed, cut or renamed; remove it, or measure again with --fresh"
        )
    return BenchmarkRecord(
        key=content["key"],
        model=content["model"],
        data=content["data"],
        versions=content["versions"],
        created=content["created"],
        missing=content["missing"],
        measurements={name: measurement_from_json(entry) for name, entry in content["measurements"].items()},
        cached=True,
        **{name: content[name] for name in _KEYS},
    )


def _checksum(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def estimate(measured: Measurement) -> Estimate:
    """The value of a metric in its interval of 95 %."""
    found = of_value(measured, _EACH_SIDE)
    if measured.interval is None or measured.interval[0] <= 0:
        return found
    # Of the metrics of benchmarks only perplexities have an interval of their own; they are exp of a mean, whose
    # bounds lie evenly around it.
    logs = (math.log(measured.interval[0]), math.log(measured.interval[1]))
    low, high = rescale(logs, math.log(measured.value), measured.interval_confidence, _EACH_SIDE)
    return replace(found, low=math.exp(low), high=math.exp(high))


def against_chance(measured: Measurement) -> str:
    """Whether the interval lies above chance, below it, or holds it; nothing where no chance level is known."""
    if measured.chance is None:
        return ""
    found = estimate(measured)
    if found.low > measured.chance:
        return "above chance"
    return "below chance" if found.high < measured.chance else "not resolved"


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """A metric of one model minus another's, over the documents that both were asked, in its interval of 95 %.

    ``value`` and ``other`` are the two means over those documents, ``p_value`` McNemar's exact one where documents are
    right or wrong, ``up`` and ``down`` the documents that differ; ``reason`` says why there is no comparison.
    """

    task: str
    metric: str
    reason: str | None = None
    value: float = float("nan")
    other: float = float("nan")
    difference: float = float("nan")
    low: float = float("nan")
    high: float = float("nan")
    p_value: float | None = None
    n: int = 0
    up: int = 0
    down: int = 0

    @property
    def words(self) -> str:
        """Which way the models differ, or that this many documents do not tell."""
        if self.reason is not None:
            return f"not evaluated: {self.reason}"
        return "higher" if self.low > 0 else "lower" if self.high < 0 else "not resolved"


def differences(one: BenchmarkRecord, other: BenchmarkRecord) -> list[Difference]:
    """Each metric of ``one`` minus that of ``other``, paired by document; only results of the same task on the same
    data under the same settings are compared, and a reason says which differ."""
    if reason := _incomparable(one, other):
        return [Difference(task=one.task, metric="", reason=reason)]
    names = [name for name in one.measurements if name in other.measurements]
    return [_difference(one.task, one.measurements[name], other.measurements[name]) for name in names]


def _incomparable(one: BenchmarkRecord, other: BenchmarkRecord) -> str | None:
    for record in (one, other):
        if record.missing is not None:
            return f"{record.model['name']}: {record.missing}"
    told = {name: (getattr(one, name), getattr(other, name)) for name in _KEYS if name != "dtype"}
    # What else is told of data may depend on the model, such as how many texts were longer than its context.
    told["data"] = (_content(one), _content(other))
    unlike = sorted(name for name, (first, second) in told.items() if first != second)
    return f"the two were measured with another {' and '.join(unlike)}" if unlike else None


def _content(record: BenchmarkRecord) -> dict[str, Any]:
    return {name: record.data[name] for name in ("examples_sha256", "sha256") if name in record.data}


def _difference(task: str, one: Measurement, other: Measurement) -> Difference:
    if one.missing is not None:
        return Difference(task=task, metric=one.metric, reason=one.missing)
    if one.kind != "exact" and not one.per_document:
        return Difference(task=task, metric=one.metric, reason="it has no value per document")
    found = of_pairs("difference", one, other, _EACH_SIDE)
    if isinstance(found, str):
        return Difference(task=task, metric=one.metric, reason=found)
    shared = one.per_document.keys() & other.per_document.keys()
    changes = [one.per_document[key] - other.per_document[key] for key in shared]
    assert found.baseline is not None
    return Difference(
        task=task,
        metric=one.metric,
        value=found.baseline + found.value,
        other=found.baseline,
        difference=found.value,
        low=found.low,
        high=found.high,
        p_value=found.p_value,
        n=found.n,
        up=sum(change > 0 for change in changes),
        down=sum(change < 0 for change in changes),
    )


def renamed(record: BenchmarkRecord, name: str) -> BenchmarkRecord:
    """A result found in the store, under the name that its model goes by now."""
    return replace(record, model={**record.model, "name": name})
