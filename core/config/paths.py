"""Paths that an experiment names: made absolute, and looked at without trust in what they are."""

from __future__ import annotations

from pathlib import Path

from ...registry.errors import ConfigError
from .problems import shown


def anchored(path: str, folder: Path) -> Path:
    """Return a path as it is meant from ``folder``; ``ConfigError`` for what no path can be."""
    try:
        there = (folder / Path(path).expanduser()).resolve()
        there.exists()
    except (OSError, RuntimeError, ValueError) as error:  # too long, the home of nobody, a NUL
        reason = getattr(error, "strerror", None) or str(error).rstrip(".")
        raise ConfigError(f"{shown(path)} cannot be a path: {reason[:1].lower()}{reason[1:]}.") from error
    return there


def is_there(path: Path) -> bool:
    """Tell whether something is at ``path``; nothing is where no path can be."""
    try:
        return path.exists()
    except (OSError, ValueError):
        return False
