"""Words for errors: the nearest name, lists of what exists, and nothing that a terminal would act on."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

_FAR = 100_000


def did_you_mean(name: str, names: Iterable[str]) -> str:
    """Return " Did you mean 'x'?" for the nearest of ``names``, or nothing when none is near."""
    near = difflib.get_close_matches(name, sorted(set(names)), n=1)
    return f" Did you mean '{near[0]}'?" if near else ""


def listing(names: Iterable[str]) -> str:
    """Return ``names`` sorted and joined by commas, or "none"."""
    return ", ".join(sorted(set(names))) or "none"


def divisors_near(number: int, whole: int) -> str:
    """Return the one or two numbers nearest to ``number`` that divide ``whole``, joined by "or"."""
    first = max(1, min(number, whole))
    # Of a number with few divisors the nearest may lie very far away, where looking would take for ever.
    below = next((one for one in range(first, max(0, first - _FAR), -1) if whole % one == 0), 1)
    above = next((one for one in range(first, min(whole, first + _FAR) + 1) if whole % one == 0), whole)
    return " or ".join(str(one) for one in dict.fromkeys((below, above)))


def flat(error: BaseException) -> str:
    """Return an exception as one line: its type and its text."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
