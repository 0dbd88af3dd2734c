"""The prompts that a safety anchor is captured from: two sides, three parts, and what was answered to them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...registry.errors import DataError
from ..config.objectives import AnchorOptions
from .fingerprint import canonical

Messages = Sequence[Mapping[str, str]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One prompt with what should be said, what should not be, and which side it is on; answers may be empty."""

    prompt: Messages
    good: Messages
    bad: Messages
    harmful: bool
    kind: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """The anchor learns from ``capture``, its limits are set on ``calibration``, its rates are measured on
    ``measured``."""

    capture: Sequence[Request]
    calibration: Sequence[Request]
    measured: Sequence[Request]

    @property
    def all(self) -> Sequence[Request]:
        """Return the requests of all parts."""
        return (*self.capture, *self.calibration, *self.measured)


@dataclass(frozen=True, slots=True, kw_only=True)
class Tokens:
    """A request in tokens: the prompt up to where an answer begins, and the prompt with each answer there is."""

    prompt: list[int]
    good: list[int] | None
    bad: list[int] | None
    harmful: bool
    kind: str


def two_sides(rows: Iterable[Mapping[str, Any]], options: AnchorOptions, label: str) -> list[Request]:
    """One request per prompt, in the order of the rows.

    ``DataError`` for a side without prompts, and for a prompt that stands on both.
    """
    found: dict[str, Request] = {}
    for row in rows:
        harmful = row["kind"] in options.harmful
        if not harmful and options.benign and row["kind"] not in options.benign:
            continue
        request = Request(
            prompt=row["prompt"],
            good=row["completion"],
            bad=row.get("rejected") or [],
            harmful=harmful,
            kind=row["kind"],
        )
        known = found.setdefault(canonical(_plain(row["prompt"])), request)
        if known.harmful != harmful:
            raise DataError(
                f"{label}: the prompt {str(row['prompt'][-1]['content'])[:60]!r} is both harmful and benign in the "
                "data; keep one of the two."
            )
    for harmful, kinds in ((True, options.harmful), (False, options.benign or ("any other kind",))):
        if not any(request.harmful == harmful for request in found.values()):
            raise DataError(
                f"{label} needs harmful and benign prompts, but the view has no training rows of {', '.join(kinds)}; "
                "name the kinds in its options, or add rows."
            )
    return list(found.values())


def divide(every: Sequence[Request], options: AnchorOptions, seed: int) -> Parts:
    """Cut the prompts of each kind, in an order drawn from ``seed``, into the three parts at their shares; of a side
    with more than ``options.prompts``, equally many of each kind as far as they go."""
    parts: tuple[list[Request], list[Request], list[Request]] = ([], [], [])
    stream = np.random.default_rng(seed)
    for harmful in (True, False):
        side = [request for request in every if request.harmful == harmful]
        side = [side[number] for number in stream.permutation(len(side))]
        kinds = {kind: [one for one in side if one.kind == kind] for kind in sorted({one.kind for one in side})}
        left = len(side) if options.prompts is None else options.prompts
        for open_kinds, kind in enumerate(sorted(kinds, key=lambda kind: len(kinds[kind]))):
            own = kinds[kind][: left // (len(kinds) - open_kinds)]
            left -= len(own)
            held, last = round(options.calibration * len(own)), round(options.measured * len(own))
            for part, members in zip(parts, (own[held + last :], own[:held], own[held : held + last]), strict=True):
                part += members
    capture, calibration, measured = ([part[number] for number in stream.permutation(len(part))] for part in parts)
    return Parts(capture=capture, calibration=calibration, measured=measured)


def usual_refusal(every: Iterable[Request], label: str) -> str:
    """The completion that most harmful prompts have; ``DataError`` if none has one."""
    texts = Counter(str(one.good[-1]["content"]) for one in every if one.harmful and one.good)
    if not texts:
        raise DataError(f"{label}: no harmful row has a completion to refuse with; set refusal in the step's options.")
    return min(texts, key=lambda text: (-texts[text], text))


def render(tokenizer: Any, part: Iterable[Request], limit: int) -> list[Tokens]:
    """Requests whose prompts have at most ``limit`` tokens; longer answers are cut there."""
    if not tokenizer.chat_template:
        raise DataError("A safety anchor reads chat prompts, but the tokenizer has no chat template; set one.")
    found = []
    for request in part:
        prompt = _ids(tokenizer, request.prompt, open_end=True)
        if len(prompt) > limit:
            continue
        good, bad = (
            _ids(tokenizer, [*request.prompt, *answer])[:limit] if answer else []
            for answer in (request.good, request.bad)
        )
        found.append(
            Tokens(
                prompt=prompt,
                good=good if len(good) > len(prompt) else None,
                bad=bad if len(bad) > len(prompt) else None,
                harmful=request.harmful,
                kind=request.kind,
            )
        )
    return found


def _ids(tokenizer: Any, messages: Messages, *, open_end: bool = False) -> list[int]:
    encoded = tokenizer.apply_chat_template(
        _plain(messages), tokenize=True, add_generation_prompt=open_end, return_dict=True
    )
    return [int(token) for token in encoded["input_ids"]]


def _plain(messages: Messages) -> list[dict[str, str]]:
    return [{"role": message["role"], "content": message["content"]} for message in messages]
