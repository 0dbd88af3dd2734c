"""Which keys of an experiment something reads: sections and options watched while the rehearsal runs."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import fields
from types import FrameType
from typing import Any

#: Modules that look at every field of whatever they are given: that a key went through them says nothing.
_GENERIC = (
    "copy",
    "dataclasses",
    "pydantic",
    "phasegate.core.config.checks",
    "phasegate.core.config.dump",
    "phasegate.core.config.layers",
    "phasegate.core.config.ranges",
    "phasegate.core.config.shaping",
    "phasegate.core.config.typed",
    "phasegate.core.run.fingerprint",
    "phasegate.core.verify",
)

Field = tuple[type, str]


@contextmanager
def watched(sections: Iterable[type]) -> Iterator[set[Field]]:
    """Collect every (class, field) of ``sections`` that is read in the block by code with a use for it."""
    seen: set[Field] = set()
    classes = list(dict.fromkeys(sections))
    for section in classes:
        setattr(section, "__getattribute__", _looking(section, seen))  # noqa: B010  a class's own slot, typed as final
    try:
        yield seen
    finally:
        for section in classes:
            delattr(section, "__getattribute__")


def _looking(section: type, seen: set[Field]) -> Any:
    names = {field.name for field in fields(section)}

    def look(self: Any, name: str) -> Any:
        if name in names and (section, name) not in seen and not _generic(sys._getframe(1)):
            seen.add((section, name))
        return object.__getattribute__(self, name)

    return look


def _generic(frame: FrameType) -> bool:
    module = str(frame.f_globals.get("__name__", ""))
    return any(module == name or module.startswith(f"{name}.") for name in _GENERIC)
