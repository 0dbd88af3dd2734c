"""Options of a component: what its config dataclass allows, checked by pydantic and explained in one sentence."""

from __future__ import annotations

import inspect
import re
import types
import typing
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, Field, dataclass, fields, is_dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from .errors import ConfigError, PluginError
from .suggest import did_you_mean, flat

if TYPE_CHECKING:
    from pydantic import TypeAdapter

_UNKNOWN = "unexpected_keyword_argument"


@dataclass(frozen=True, slots=True, kw_only=True)
class Option:
    """One option as it is shown to people: type and default as text; ``default`` is None where one must be given."""

    name: str
    type: str
    default: str | None


def describe(config: type) -> tuple[Option, ...]:
    """Return the options of a config dataclass in the order of its fields."""
    return tuple(Option(name=item.name, type=_type(item), default=_default(item)) for item in _fields(config))


def parse(config: type, options: Mapping[str, Any], label: str) -> Any:
    """Return an instance of ``config`` made of ``options``; ``label`` says whose they are (``router dist:name``).

    Unknown options are refused at every depth. Values are converted as YAML needs it: lists to tuples,
    ``"1e-3"`` to a number. The place of the ``ConfigError`` is the option that is wrong.
    """
    from pydantic import ValidationError
    from pydantic.errors import PydanticUserError

    try:
        adapter = _adapter(config)
    except (PydanticUserError, NameError) as error:
        raise PluginError(f"{label} has a config whose types cannot be checked: {flat(error)}.") from error
    try:
        return adapter.validate_python((dict(options),))[0]
    except ValidationError as error:
        problems = [dict(problem) for problem in error.errors(include_url=False)]
        # A misspelt key is reported as unknown and the one it should have been as missing: the first is the cause.
        problem = next((p for p in problems if p["type"] == _UNKNOWN), problems[0])
        text = _explain(config, problem, label)
        raise ConfigError(text).within(*_place(problem, options, text)) from error


@lru_cache(maxsize=256)  # what takes most of the time of a plan
def _adapter(config: type) -> TypeAdapter[Any]:
    from pydantic import ConfigDict, TypeAdapter

    # Plain dataclasses ignore unknown keys in pydantic; the enclosing tuple hands them its own rule.
    return TypeAdapter(tuple[config], config=ConfigDict(extra="forbid"))  # type: ignore[valid-type]


def _place(problem: Mapping[str, Any], options: Mapping[str, Any], text: str) -> tuple[str, ...]:
    """Return the option that a problem is about; of a contradiction, the last option given that its text names."""
    path = tuple(str(part) for part in problem["loc"][1:])
    if path:
        return path[:-1] if problem["type"] == "missing" else path
    return named(options, text)


def named(options: Iterable[str], text: str) -> tuple[str, ...]:
    """Return the last of the options that a text names, as a place; an empty one where it names none."""
    words = set(re.findall(r"\w+", text))
    return tuple([name for name in options if name in words][-1:])


def _explain(config: type, problem: Mapping[str, Any], label: str) -> str:
    path = problem["loc"][1:]
    where = ".".join(str(part) for part in path)
    if problem["type"] == _UNKNOWN:
        owner = _owner(config, path[:-1])
        names = [item.name for item in _fields(owner)] if owner else []
        known = f" Options: {', '.join(names) or 'none'}." if owner else ""
        return f"{label} has no option '{where}'.{did_you_mean(str(path[-1]), names)}{known}"
    if problem["type"] == "missing":
        return f"{label} needs the option '{where}'."
    text = str(problem["msg"]).removeprefix("Value error, ").removeprefix("Assertion failed, ").rstrip(".")
    if not where:
        return f"{label}: {text}."
    input_rule = "Input should "
    why = (
        f"but it should {text.removeprefix(input_rule)}" if text.startswith(input_rule) else f"which is refused: {text}"
    )
    return f"{label} has '{where}' = {_short(problem['input'])}, {why}."


def _short(value: object) -> str:
    text = " ".join(repr(value).split())
    return text if len(text) <= 60 else f"{text[:59]}…"


def _fields(config: type) -> list[Field[Any]]:
    return [item for item in fields(config) if item.init]


def _owner(config: type, path: tuple[Any, ...]) -> type | None:
    """Return the dataclass that ``path`` leads to from ``config``, or None where containers hide it."""
    current: type | None = config
    for part in path:
        names = {item.name for item in _fields(current)} if current else set()
        if current is None or part not in names:
            continue  # a key or index of a container, or the name of a union's member
        current = _dataclass_in(typing.get_type_hints(current)[part])
    return current


def _dataclass_in(hint: Any) -> type | None:
    if isinstance(hint, type) and is_dataclass(hint):
        return hint
    found = [inner for inner in map(_dataclass_in, typing.get_args(hint)) if inner]
    return found[0] if len(found) == 1 else None


def _type(item: Field[Any]) -> str:
    if isinstance(item.type, str):
        return item.type
    if isinstance(item.type, types.GenericAlias):
        return str(item.type)
    return inspect.formatannotation(item.type)


def _default(item: Field[Any]) -> str | None:
    if item.default is not MISSING:
        return repr(item.default)
    if item.default_factory is not MISSING:
        return repr(item.default_factory())
    return None
