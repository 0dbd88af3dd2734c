"""Numbers as people read them: sensible digits, intervals in brackets, counts with separators."""

from __future__ import annotations

import math

NOTHING = "–"
NOT_MEASURED = "not measured"
NOT_RECORDED = "not recorded"

_MINUS = "−"
FIXED = "\N{NO-BREAK SPACE}"  # an interval is not broken over two lines


def number(value: float | None, digits: int | None = None) -> str:
    """A number with ``digits`` decimals, or as many as its size asks for; a dash where there is none."""
    if value is None or math.isnan(value):
        return NOTHING
    if math.isinf(value):
        return "∞" if value > 0 else f"{_MINUS}∞"
    text = f"{abs(value):,.{decimals(value) if digits is None else digits}f}"
    if digits is None and value and not float(text.replace(",", "")):
        text = f"{abs(value):.1g}"
    return f"{_MINUS}{text}" if value < 0 and float(text.replace(",", "")) else text


def decimals(value: float) -> int:
    """How many decimals a number of this size is shown with: three below 10, none from 1,000 on."""
    size = abs(value)
    return 3 if size < 10 else 2 if size < 100 else 1 if size < 1000 else 0


def signed(value: float | None, digits: int | None = None) -> str:
    """A change: with its sign, also when it is positive."""
    text = number(value, digits)
    return f"+{text}" if value is not None and math.isfinite(value) and value > 0 else text


def interval(low: float | None, high: float | None, digits: int | None = None) -> str:
    """``[a, b]``, or nothing where neither bound is known or both are one number."""
    if low is None or high is None or math.isnan(low) or math.isnan(high) or low == high:
        return ""
    if digits is None:
        digits = max((decimals(end) for end in (low, high) if math.isfinite(end)), default=3)
    return f"[{number(low, digits)},{FIXED}{number(high, digits)}]"


def percent(share: float | None, digits: int = 0) -> str:
    """A share as a percentage."""
    return NOTHING if share is None or math.isnan(share) else f"{number(100 * share, digits)}{FIXED}%"


def count(value: float | None) -> str:
    """A whole number with separators."""
    return NOTHING if value is None else f"{value:,.0f}"


def duration(seconds: float | None) -> str:
    """Seconds as seconds, minutes or hours."""
    if seconds is None:
        return NOT_RECORDED
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.1f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def size(amount: float | None) -> str:
    """Bytes in binary units."""
    if amount is None:
        return NOT_RECORDED
    for unit in ("B", "KiB", "MiB"):
        if amount < 1024:
            return f"{amount:.0f} {unit}"
        amount /= 1024
    return f"{amount:.1f} GiB"


def several(amount: int, one: str, many: str = "") -> str:
    """``1 phase``, ``2 phases``."""
    return f"{count(amount)} {one if amount == 1 else many or one + 's'}"


def listed(names: list[str] | tuple[str, ...]) -> str:
    """Names in a sentence: ``a, b and c``."""
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}" if names else ""
