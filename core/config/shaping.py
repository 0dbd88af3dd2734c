"""From what a file says to what the schema means: short forms spelt out, inline options gathered, unknown keys named.

A *shaped* value is plain data that mirrors the dataclasses of ``schema``: every section is a mapping, and component
options stand under ``options``. Layers (recipe, file, overrides) are shaped first and merged afterwards.
"""

from __future__ import annotations

import types
from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from functools import cache
from typing import Any, Union, get_args, get_origin, get_type_hints

from ...registry.suggest import did_you_mean, listing
from .problems import Problems, shown
from .schema import (
    CriterionSection,
    Experiment,
    LossSection,
    MetricSection,
    ModelSection,
    PhaseSection,
    QuantizerSection,
    Ref,
    Weight,
)

KeyPath = tuple[str, ...]

# Keys of these that are no fields are options of the component.
INLINE = (Ref, LossSection, CriterionSection, MetricSection, ModelSection, QuantizerSection)
NAMED = (LossSection, PhaseSection)  # `use` is the section's own name unless it says otherwise


@cache
def hints(section: type) -> Mapping[str, Any]:
    """Return the type of every field of a schema class."""
    known = get_type_hints(section)
    return {field.name: known[field.name] for field in fields(section)}


def section_of(hint: Any) -> type | None:
    """Return the schema class that a value of this type is written as, or None for plain values."""
    if isinstance(hint, type) and is_dataclass(hint):
        return hint
    if get_origin(hint) in (Union, types.UnionType):
        return next((found for part in get_args(hint) if (found := section_of(part))), None)
    return None


def entries_of(hint: Any) -> Any | None:
    """Return the value type of a mapping by name, or None for anything else."""
    return get_args(hint)[1] if get_origin(hint) is Mapping else None


def shape(section: type, value: Any, path: KeyPath, problems: Problems) -> dict[str, Any]:
    """Return ``value`` in the shape of ``section``; what cannot be shaped is noted and left out."""
    known = hints(section)
    if value is None:
        return {}
    if isinstance(value, str) and "use" in known:
        return {"use": value}
    if not isinstance(value, Mapping):
        short = " or the name of a component" if "use" in known else ""
        problems.add(path, f"{_named(path)} must be a mapping{short}, not {shown(value)}.")
        return {}
    shaped: dict[str, Any] = {}
    options: dict[str, Any] = {}
    for key, item in value.items():
        here = (*path, key)
        if key in known:
            shaped[key] = _shape_field(known[key], key, item, here, problems)
        elif section in INLINE:
            options[key] = item
        else:
            problems.add(here, _unknown(key, section, path))
    if section in INLINE and options:
        shaped["options"] = _join(shaped.get("options"), options, path, problems)
    return shaped


def _shape_field(hint: Any, key: str, item: Any, path: KeyPath, problems: Problems) -> Any:
    inner = section_of(hint)
    if inner is Weight:
        return shape(Weight, item, path, problems) if isinstance(item, Mapping) else item
    if inner is not None:
        # Null where nothing is allowed takes away what a recipe says.
        return None if item is None and type(None) in get_args(hint) else shape(inner, item, path, problems)
    entry = entries_of(hint)
    if key == "options":
        return {} if item is None else item
    if entry is None:
        return str(item) if path == ("size",) and type(item) is int else item
    if item is None:
        return {}
    if not isinstance(item, Mapping):
        problems.add(path, f"{_named(path)} must be a mapping by name, not {shown(item)}.")
        return {}
    section = section_of(entry)
    if section is None:
        return dict(item)
    return {
        name: None if part is None and section is not PhaseSection else shape(section, part, (*path, name), problems)
        for name, part in item.items()
    }


def _join(explicit: Any, inline: Mapping[str, Any], path: KeyPath, problems: Problems) -> dict[str, Any]:
    if explicit is not None and not isinstance(explicit, Mapping):
        problems.add((*path, "options"), f"{_named((*path, 'options'))} must be a mapping, not {shown(explicit)}.")
        return dict(inline)
    for key in sorted(set(explicit or {}) & set(inline)):
        problems.add((*path, key), f"the option '{key}' of {_named(path)} is given twice, inline and under options.")
    return {**(explicit or {}), **inline}


def _unknown(key: str, section: type, path: KeyPath) -> str:
    own = hints(section)
    text = f"{_named(path)} has no key '{key}'."
    close = did_you_mean(key, own)
    if close:
        return f"{text}{close} Keys: {listing(own)}."
    homes = [home for name, home in _homes() if name == key]
    if homes:
        return f"{text} It belongs to {' or '.join(sorted(set(homes)))}."
    elsewhere = did_you_mean(key, {name for name, _ in _homes()})
    if elsewhere:
        meant = elsewhere.split("'")[1]
        home = sorted({home for name, home in _homes() if name == meant})
        return f"{text} Did you mean '{meant}' of {' or '.join(home)}? Keys here: {listing(own)}."
    return f"{text} Keys: {listing(own)}."


@cache
def _homes() -> tuple[tuple[str, str], ...]:
    """Return every key of the schema with the section that it belongs to."""
    return tuple(_walk(Experiment, "the experiment", ""))


def _walk(section: type, title: str, prefix: str) -> Iterator[tuple[str, str]]:
    for name, hint in hints(section).items():
        yield name, title
        path = f"{prefix}{name}"
        inner, entry = section_of(hint), entries_of(hint)
        if inner is not None and inner is not Ref:
            yield from _walk(inner, path, f"{path}.")
        elif entry is not None and (part := section_of(entry)) is not None and part is not Ref:
            yield from _walk(part, f"{path}.<name>", f"{path}.<name>.")


def _named(path: KeyPath) -> str:
    return ".".join(path) or "the experiment"
