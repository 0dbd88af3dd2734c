"""Collecting what is wrong with an experiment, so that one attempt shows all of it."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from ...registry.errors import ConfigError

Locator = Callable[[Sequence[str]], str]

SHOWN = 10


@dataclass(slots=True)
class Problems:
    """Sentences with the place each belongs to; ``stop`` raises them together."""

    locate: Locator
    texts: list[str] = field(default_factory=list)

    def add(self, path: Sequence[str], text: str) -> None:
        """Note that ``text`` is wrong at ``path``; a sentence that was noted already is not repeated."""
        sentence = f"{self.locate(path)}: {text}"
        if sentence not in self.texts:
            self.texts.append(sentence)

    def stop(self) -> None:
        """Raise ``ConfigError`` with at most ten sentences if anything was noted."""
        if not self.texts:
            return
        shown = self.texts[:SHOWN]
        if len(self.texts) > SHOWN:
            shown.append(f"… and {len(self.texts) - SHOWN} more.")
        raise ConfigError("\n".join(shown))


def shown(value: Any) -> str:
    """Return a value as it might stand in the file, at most 60 characters long."""
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 60 else text[:59] + "…"
