"""Words for errors: the nearest name, and lists of what exists."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def did_you_mean(name: str, names: Iterable[str]) -> str:
    """Return " Did you mean 'x'?" for the nearest of ``names``, or nothing when none is near."""
    near = difflib.get_close_matches(name, sorted(set(names)), n=1)
    return f" Did you mean '{near[0]}'?" if near else ""


def listing(names: Iterable[str]) -> str:
    """Return ``names`` sorted and joined by commas, or "none"."""
    return ", ".join(sorted(set(names))) or "none"


def flat(error: BaseException) -> str:
    """Return an exception as one line: its type and its text."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
