"""Evidence as strict JSON: measurements and judgements written and read back without loss."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from ..registry.errors import StoreError
from .criteria import Judgement
from .measurement import Measurement

_WORDS = {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}
_NUMBERS = ("value", "low", "high", "baseline", "p_value", "chance")


def judgement_to_json(judgement: Judgement) -> dict[str, Any]:
    """A judgement as JSON-able data; numbers that JSON has no words for become ``"nan"``, ``"inf"``, ``"-inf"``."""
    return {field.name: _encode(getattr(judgement, field.name)) for field in fields(Judgement)}


def judgement_from_json(data: Mapping[str, Any]) -> Judgement:
    """The judgement that was written; keys of later versions are left aside."""
    known = {field.name for field in fields(Judgement)}
    return Judgement(**{k: _decode(v) if k in _NUMBERS else v for k, v in data.items() if k in known})


def measurement_to_json(measurement: Measurement) -> dict[str, Any]:
    """A measurement as JSON-able data, per-document values included."""
    return {field.name: _encode(getattr(measurement, field.name)) for field in fields(Measurement)}


def measurement_from_json(data: Mapping[str, Any]) -> Measurement:
    """The measurement that was written; keys of later versions are left aside."""
    known = {field.name for field in fields(Measurement)}
    values = {key: value for key, value in data.items() if key in known}
    values["value"] = _decode(values["value"])
    values["per_document"] = {key: _decode(value) for key, value in values.get("per_document", {}).items()}
    if (interval := values.get("interval")) is not None:
        values["interval"] = (_decode(interval[0]), _decode(interval[1]))
    return Measurement(**values)


def write_measurements(path: Path, measurements: Mapping[str, Measurement]) -> None:
    """Write what one gate measured to a JSON file."""
    _write(path, {name: measurement_to_json(m) for name, m in measurements.items()})


def read_measurements(path: Path) -> dict[str, Measurement]:
    """Read what one gate measured; ``StoreError`` where the file is missing or damaged."""
    data = _read(path)
    if not isinstance(data, dict):
        raise StoreError(f"evidence file {path} holds no measurements: measure this stage again.")
    return {name: measurement_from_json(entry) for name, entry in data.items()}


def write_judgements(path: Path, judgements: Iterable[Judgement]) -> None:
    """Write a table of verdicts to a JSON file."""
    _write(path, [judgement_to_json(judgement) for judgement in judgements])


def read_judgements(path: Path) -> tuple[Judgement, ...]:
    """Read a table of verdicts; ``StoreError`` where the file is missing or damaged."""
    data = _read(path)
    if not isinstance(data, list):
        raise StoreError(f"evidence file {path} holds no judgements: judge this stage again.")
    return tuple(judgement_from_json(entry) for entry in data)


def _write(path: Path, data: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(data, indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False), encoding="utf-8")


def _read(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise StoreError(f"evidence file {path} cannot be read ({error}): measure this stage again.") from error


def _encode(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return "nan" if math.isnan(value) else ("inf" if value > 0 else "-inf")
    if isinstance(value, Mapping):
        return {str(key): _encode(entry) for key, entry in value.items()}
    if isinstance(value, tuple | list):
        return [_encode(entry) for entry in value]
    return value


def _decode(value: Any) -> Any:
    return _WORDS.get(value, value) if isinstance(value, str) else value
