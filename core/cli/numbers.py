"""Numbers as a person reads them."""

from __future__ import annotations

import math
from datetime import timedelta

NOTHING = "–"


def number(value: float | None) -> str:
    """Four significant digits; a dash where there is no number."""
    return NOTHING if value is None or math.isnan(value) else f"{value:.4g}"


def interval(low: float, high: float) -> str:
    """``[low, high]``; a dash where neither is a number."""
    return NOTHING if math.isnan(low) and math.isnan(high) else f"[{number(low)}, {number(high)}]"


def count(value: float) -> str:
    """A count with three digits and k, M, G, T, P or E (powers of 1000)."""
    scaled, suffixes = float(value), ["", " k", " M", " G", " T", " P", " E"]
    while scaled >= 999.5 and len(suffixes) > 1:
        scaled /= 1000
        suffixes.pop(0)
    return f"{scaled:.3g}{suffixes[0]}"


def hours(value: float) -> str:
    """``h:mm:ss`` below a day, whole hours from there; less than a second is said so."""
    seconds = value * 3600
    if seconds < 1:
        return "< 1 s" if seconds > 0 else NOTHING
    return duration(seconds) if value < 24 else f"{value:,.0f} h"


def money(value: float) -> str:
    """An amount in hundredths; less than one is said so."""
    if value < 0.01:
        return "< 0.01" if value > 0 else NOTHING
    return f"{value:,.2f}"


def size(value: float) -> str:
    """Bytes with three digits and KiB, MiB, GiB or TiB (powers of 1024)."""
    scaled, suffixes = float(value), ["B", "KiB", "MiB", "GiB", "TiB"]
    while scaled >= 999.5 and len(suffixes) > 1:
        scaled /= 1024
        suffixes.pop(0)
    return f"{scaled:.3g} {suffixes[0]}"


def duration(seconds: float) -> str:
    """``h:mm:ss``."""
    return str(timedelta(seconds=round(seconds)))
