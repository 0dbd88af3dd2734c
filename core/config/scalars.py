"""What an unquoted word of a YAML file means: the core schema of YAML 1.2, with ``20_000`` as a number."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

_INTEGER = re.compile(r"[-+]?(\d+|\d{1,3}(_\d{3})+)")
_NUMBER = re.compile(r"[-+]?(\.\d+|\d+(\.\d*)?)([eE][-+]?\d+)?")
_WORDS: Mapping[str, bool | None] = {
    "": None, "~": None, "null": None, "Null": None, "NULL": None,
    "true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False,
}  # fmt: skip


def resolve(text: str) -> str | int | float | bool | None:
    """Return what an unquoted scalar means; raises ``OverflowError`` for a number that does not fit."""
    if text in _WORDS:
        return _WORDS[text]
    if _INTEGER.fullmatch(text):
        if len(text) > 20:
            raise OverflowError(text)
        return int(text)
    if _NUMBER.fullmatch(text):
        number = float(text)
        if not math.isfinite(number):
            raise OverflowError(text)
        return number
    return text


def reads_as_text(text: str) -> bool:
    """Tell whether an unquoted scalar is read as the text that it is."""
    return not (text in _WORDS or _INTEGER.fullmatch(text) or _NUMBER.fullmatch(text))
