"""Reading the evidence of stages: measurements by gate key, tables, lines; damage is told in a sentence."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from ...evals.estimates import of_value
from ...evals.measurement import Measurement
from ...evals.records import read_measurements
from ...registry.errors import StoreError
from ..run.assessing import FOLDER as ASSESSED
from ..run.assessing import evidence_of
from ..run.store import Stage, Store
from .facts import Value

Measured = Mapping[str, Measurement]
T = TypeVar("T")

_OTHER = frozenset({"changes.json", "verdicts.json"})


def whole(path: Path, read: Callable[[], T]) -> T:
    """What ``read`` makes of a file; ``StoreError`` where its content is not what it should be."""
    try:
        return read()
    except (AttributeError, IndexError, KeyError, OSError, TypeError, ValueError) as error:
        told = f"{type(error).__name__}: {error}"
        raise StoreError(f"{path} is damaged ({told}); restore it from a copy or train its stage again.") from error


def measured_in(folder: Path) -> dict[str, Measured]:
    """Every measurement that lies in a folder of evidence, by gate key."""
    files = [path for path in sorted(folder.glob("*.json")) if path.name not in _OTHER]
    return {path.stem: whole(path, partial(read_measurements, path)) for path in files}


def evidence_by_phase(stages: Mapping[str, Stage], store: Store) -> dict[str, dict[str, Measured]]:
    """Every measurement of the model after each phase: its own, what was measured of it since, and what later phases
    measured of it, as their entry criteria or as a baseline."""
    found: dict[str, dict[str, Measured]] = {
        phase: whole(stage.evidence, partial(evidence_of, store, stage)) for phase, stage in stages.items()
    }
    before: str | None = None
    for phase, stage in stages.items():
        for folder in sorted(path for path in stage.evidence.glob("*") if path.is_dir()):
            name = folder.name.removeprefix("against-")
            other = before if folder.name == "entry" or name == "parent" else name
            if other in found and (folder.name == "entry" or name != folder.name):
                found[other] = {**measured_in(folder), **found[other]}
        before = phase
    return found


def tables_in(stage: Stage, gate: str, name: str) -> Path | None:
    """A file that a gate left in its folder of a stage's evidence, or when it was measured later; None where there is
    none."""
    places = (stage.evidence, stage.folder.parent / ASSESSED / stage.name)
    return next((path for place in places for path in sorted(place.glob(f"*{gate}-????????/{name}"))), None)


def lines_of(path: Path) -> list[dict[str, Any]]:
    """The mappings of a file with one JSON object a line."""
    return whole(path, lambda: [dict(json.loads(line)) for line in path.read_text(encoding="utf-8").splitlines()])


def json_of(path: Path) -> dict[str, Any]:
    """The mapping of a JSON file."""
    return whole(path, lambda: dict(json.loads(path.read_text(encoding="utf-8"))))


def value_of(measured: Measurement | None, confidence: float = 0.95) -> Value | None:
    """A measurement with one-sided bounds; None where there is none at all."""
    if measured is None:
        return None
    if measured.missing is not None or not math.isfinite(measured.value):
        why = measured.missing or "its value is not a finite number"
        return Value(value=None, low=None, high=None, n=measured.n, missing=why)
    estimate = of_value(measured, confidence)
    known = math.isfinite(estimate.low) and math.isfinite(estimate.high)
    return Value(
        value=estimate.value,
        low=estimate.low if known else None,
        high=estimate.high if known else None,
        n=estimate.n,
        chance=measured.chance,
    )


def value_from(row: Mapping[str, Any], n: int = 0) -> Value:
    """A value of a table: ``value``, ``low``, ``high``."""
    return Value(value=float(row["value"]), low=row.get("low"), high=row.get("high"), n=int(row.get("n", n)))
