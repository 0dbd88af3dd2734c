"""Collecting what is wrong with an experiment, so that one attempt shows all of it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from ...registry.errors import ConfigError, PhasegateError
from ...registry.printable import in_line

Locator = Callable[[Sequence[str]], str]

SHOWN = 10


@dataclass(slots=True)
class Problems:
    """Sentences with the place each belongs to; ``stop`` raises them together."""

    locate: Locator
    texts: list[str] = field(default_factory=list)
    paths: set[tuple[str, ...]] = field(default_factory=set)

    def add(self, path: Sequence[str], text: str) -> None:
        """Note that ``text`` is wrong at ``path``; a sentence that was noted already is not repeated."""
        sentence = in_line(f"{self.locate(path)}: {text}")
        self.paths.add(tuple(path))
        if sentence not in self.texts:
            self.texts.append(sentence)

    def has(self, path: Sequence[str]) -> bool:
        """Tell whether something is wrong at ``path`` itself, so that what follows from it need not be said."""
        return tuple(path) in self.paths

    def stop(self) -> None:
        """Raise ``ConfigError`` with at most ten sentences if anything was noted."""
        if not self.texts:
            return
        shown = self.texts[:SHOWN]
        if len(self.texts) > SHOWN:
            shown.append(f"… and {len(self.texts) - SHOWN} more.")
        raise ConfigError("\n".join(shown))


@contextmanager
def located(locate: Locator) -> Iterator[None]:
    """Put the place in the file before the text of an error that knows which key is to blame."""
    try:
        yield
    except PhasegateError as error:
        if not error.place:
            raise
        raise type(error)(in_line(f"{locate(error.place)}: {error}")) from error


def shown(value: Any) -> str:
    """Return a value as it might stand in the file, at most 60 characters long."""
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 60 else text[:59] + "…"
