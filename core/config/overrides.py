"""``--set a.b.c=value``: one key of an experiment, changed from the command line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ...registry.errors import ConfigError
from .document import KeyPath, parse_document
from .scalars import resolve

_STRUCTURED = frozenset("[{'\"")


@dataclass(frozen=True, slots=True, kw_only=True)
class Override:
    """One ``--set``: the path of the key, its value, and where it was said."""

    path: KeyPath
    value: Any
    text: str

    def layer(self) -> dict[str, Any]:
        """Return the override as a mapping from the top of the experiment."""
        nested: Any = self.value
        for key in reversed(self.path):
            nested = {key: nested}
        layer: dict[str, Any] = nested
        return layer


def parse_overrides(texts: Sequence[str], places: Mapping[str, str]) -> tuple[Override, ...]:
    """Return the overrides in order; raises ``ConfigError`` where ``key=value`` cannot be read.

    ``places`` says where those texts were written that nobody typed.
    """
    return tuple(_parse(text, places.get(text, f"--set {text}")) for text in texts)


def _parse(text: str, label: str) -> Override:
    key, equals, value = text.partition("=")
    path = tuple(part.strip() for part in key.split("."))
    if not equals:
        raise ConfigError(f"{label}: there is no '='; write --set {key or 'a.b.c'}=value.")
    if not all(path):
        raise ConfigError(f"{label}: '{key}' is not a key such as data.sequence_length.")
    if len(path) > 12:
        raise ConfigError(f"{label}: no key of an experiment lies {len(path)} levels deep.")
    return Override(path=path, value=_value(value.strip(), label), text=label)


def _value(text: str, label: str) -> Any:
    """Return lists, mappings and quoted text as YAML has them, and anything else as one scalar: ``*.md`` is text."""
    if text[:1] in _STRUCTURED:
        return parse_document(text, label).value
    if any("\ud800" <= character <= "\udfff" for character in text):
        raise ConfigError(f"{label}: the value is not UTF-8.")
    try:
        return resolve(text)
    except OverflowError:
        raise ConfigError(f"{label}: the number {text[:20]} is too large.") from None
