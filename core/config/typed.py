"""From settled plain data to the typed experiment, with errors in the words of the file."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

from pydantic import TypeAdapter, ValidationError
from pydantic_core import ErrorDetails

from ...registry.suggest import did_you_mean
from .problems import Problems, shown
from .schema import Experiment

_EXPECTED: Mapping[str, str] = {
    "bool_type": "true or false",
    "dataclass_type": "a mapping",
    "dict_type": "a mapping",
    "float_type": "a number",
    "int_from_float": "a whole number",
    "int_type": "a whole number",
    "mapping_type": "a mapping",
    "string_type": "text (quote it)",
    "tuple_type": "a list",
}

_KEPT = ("use", "recipe", "options")  # of a phase that its recipe has still to fill


@cache
def _adapter() -> TypeAdapter[Experiment]:
    return TypeAdapter(Experiment)


def to_experiment(settled: Mapping[str, Any], problems: Problems, *, partial: bool = False) -> Experiment | None:
    """Return the typed experiment, or None after noting what does not fit.

    Types are strict: no text for a number, no number for text, no true for 1. ``partial`` lets keys be missing
    below ``phases``, where recipes fill them; the phases are then left out of the result except for what names
    their component.
    """
    errors = [error for error in _errors(settled) if not _other_branch(error, settled)]
    if partial:
        errors = [error for error in errors if not _filled_later(error)]
    _report(errors, settled, problems)
    if errors:
        return None
    if partial:
        phases = settled.get("phases") or {}
        kept = {name: {key: phase[key] for key in _KEPT if key in phase} for name, phase in phases.items()}
        settled = {**settled, "phases": kept}
    return _adapter().validate_json(json.dumps(settled), strict=True)


def _errors(settled: Mapping[str, Any]) -> list[ErrorDetails]:
    try:
        _adapter().validate_json(json.dumps(settled), strict=True)
    except ValidationError as error:
        return error.errors(include_url=False, include_context=True)
    return []


def _filled_later(error: ErrorDetails) -> bool:
    return error["type"] == "missing" and error["loc"][0] == "phases" and isinstance(error["loc"][-1], str)


def _other_branch(error: ErrorDetails, settled: Mapping[str, Any]) -> bool:
    """Tell whether this is only the complaint of "a number" about a mapping of start, end and over."""
    return error["loc"][-1] == "float" and isinstance(_place(error, settled)[1], Mapping)


def _report(errors: Sequence[ErrorDetails], settled: Mapping[str, Any], problems: Problems) -> None:
    expected: dict[tuple[str, ...], list[str]] = {}
    values: dict[tuple[str, ...], Any] = {}
    choices: dict[tuple[str, ...], list[str]] = {}
    for error in errors:
        path, value = _place(error, settled)
        if error["type"] == "missing" and isinstance(error["loc"][-1], int):
            path = path[:-1]
            expected[path], values[path] = [f"a list of {error['loc'][-1] + 1}"], value
            continue
        if error["type"] == "missing":
            if not problems.has(path[:-1]):
                problems.add(path, f"{'.'.join(path[:-1]) or 'the experiment'} lacks the key '{path[-1]}'.")
            continue
        values[path] = value
        if error["type"] == "literal_error":
            choices[path] = re.findall(r"'([^']*)'", str(error["ctx"]["expected"]))
        words = _words(error)
        if words not in expected.setdefault(path, []):
            expected[path].append(words)
    for path, words_of in expected.items():
        text = f"{'.'.join(path)} must be {' or '.join(words_of)}, not {shown(values[path])}."
        near = did_you_mean(values[path], choices[path]) if path in choices and isinstance(values[path], str) else ""
        problems.add(path, f"{text}{near}")


def _place(error: ErrorDetails, settled: Mapping[str, Any]) -> tuple[tuple[str, ...], Any]:
    """Return the path in the data and the value there; union branches in pydantic's location are dropped."""
    path: list[str] = []
    here: Any = settled
    location = error["loc"]
    for index, part in enumerate(location):
        if not _holds(here, part):
            if error["type"] == "missing" and index == len(location) - 1:
                path.append(str(part))
            continue
        path.append(str(part))
        here = here[part]
    return tuple(path), here


def _holds(value: Any, part: int | str) -> bool:
    if isinstance(value, list):
        return isinstance(part, int) and part < len(value)
    return isinstance(value, Mapping) and part in value


def _words(error: ErrorDetails) -> str:
    kind = error["type"]
    if error["loc"] and error["loc"][-1] == "Weight":
        return "a mapping of start, end and over"
    if kind == "literal_error":
        return "one of " + str(error["ctx"]["expected"]).replace("'", "").replace(" or ", ", ")
    if kind == "too_long":
        return f"a list of {error['ctx']['max_length']}"
    return _EXPECTED.get(kind, error["msg"])
