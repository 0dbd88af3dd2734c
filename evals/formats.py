"""Verifiable answer formats, in the manner of IFEval (Zhou 2023, arXiv 2311.07911), and a judge with ground truth.

Both are pure functions of two strings: a JSON description that a data row carries, and the model's answer.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from typing import Any

from ..registry.errors import DataError

_WORD = r"[^\W_]+"
_DONE = "done"


def _matches(pattern: str) -> Callable[[str], bool]:
    compiled = re.compile(pattern)
    return lambda answer: compiled.fullmatch(answer) is not None


def _is_json_answer(answer: str) -> bool:
    try:
        value = json.loads(answer)
    except ValueError:
        return False
    if not isinstance(value, dict) or [str(key).strip() for key in value] != ["answer"]:
        return False
    (content,) = value.values()
    return re.fullmatch(_WORD, str(content).strip()) is not None


FORMATS: Mapping[str, Callable[[str], bool]] = {
    "plain": lambda answer: re.fullmatch(_WORD, answer) is not None and answer == answer.lower(),
    "upper": lambda answer: re.fullmatch(_WORD, answer) is not None and answer == answer.upper(),
    "json": _is_json_answer,
    "brackets": _matches(rf"\[\s*{_WORD}\s*\]"),
    "twice": _matches(rf"({_WORD})\s+\1"),
    "done": _matches(rf"{_WORD}\s+{_DONE}"),
    "bullet": _matches(rf"-\s*{_WORD}"),
    "quotes": _matches(rf'"\s*{_WORD}\s*"'),
}


def check_format(check: str, answer: str) -> bool:
    """Tell whether ``answer`` has the format that ``check`` (JSON: ``{"format": name}``) asks for.

    Leading and trailing blanks do not count; every format wants exactly one word of content, whichever it is.
    Raises ``DataError`` when ``check`` is not such a description.
    """
    name = str(_read(check, "a format check").get("format"))
    if name not in FORMATS:
        raise DataError(f"The format check {check!r} names no known format; known are {', '.join(sorted(FORMATS))}.")
    return FORMATS[name](answer.strip())


def judge_answer(truth: str, answer: str) -> float:
    """Score a free answer against the truth: right value in a good style 1, right value otherwise 0.5, else 0.

    ``truth`` is JSON: ``{"value": word, "good": [whole answers], "bad": [...], "others": [words]}``. A value is
    right when it stands in the answer as a word and none of ``others`` (the attribute's other values) does.
    """
    facts = _read(truth, "a ground truth")
    if "value" not in facts or "good" not in facts:
        raise DataError(f"The ground truth {truth!r} needs the keys 'value' and 'good'.")
    words = set(re.findall(_WORD, answer.lower()))
    value = str(facts["value"]).lower()
    if value not in words or words & {str(word).lower() for word in facts.get("others", ())} - {value}:
        return 0.0
    good = {_squeeze(style) for style in facts["good"]}
    return 1.0 if _squeeze(answer) in good else 0.5


def _squeeze(text: str) -> str:
    return " ".join(text.split())


def _read(text: str, what: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except ValueError as error:
        raise DataError(f"The text {text!r} is not {what}: it is not JSON ({error}).") from error
    if not isinstance(value, dict):
        raise DataError(f"The text {text!r} is not {what}: a JSON object is needed.")
    return value
