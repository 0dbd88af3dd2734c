"""One row of a view from one record; None where the record has not what the view needs."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ...registry.errors import DataError
from .dialogues import Messages, parse_dialogue, split_first, split_pair
from .options import RecordOptions
from .templates import Record, field_of, is_constant, messages_of, render, text_of, value_of

Row = dict[str, Any]

_CALCULATION = re.compile(r"<<[^<>]*>>")
_PLACES = re.compile(r"\{([^{}]+)\}")


def _clean(text: str, options: RecordOptions) -> str:
    if options.strip_calculations:
        text = _CALCULATION.sub("", text)
    for part in options.remove:
        text = text.replace(part, "")
    return text.strip() if options.remove else text


def _text(record: Record, options: RecordOptions, column: str, source: str) -> str:
    return _clean(render(options.template(column), record, source), options)


def _messages(record: Record, options: RecordOptions, column: str, role: str, source: str) -> Messages:
    found = messages_of(options.template(column), record, role, source)
    cleaned = [
        {**message, "content": _clean(message["content"], options)} if message["role"] == "assistant" else message
        for message in found
    ]
    return [message for message in cleaned if message["content"]]


def make_text(record: Record, options: RecordOptions, source: str) -> Row | None:
    text = _text(record, options, "text", source)
    return {"text": text} if text else None


def make_chat(record: Record, options: RecordOptions, source: str) -> Row | None:
    prompt = _messages(record, options, "prompt", "user", source)
    completion = _messages(record, options, "completion", "assistant", source)
    if not prompt or not completion:
        return None
    return {"prompt": prompt, "completion": completion, "kind": options.kind, "check": ""}


def make_preference(record: Record, options: RecordOptions, source: str) -> Row | None:
    if options.dialogue:
        parts = split_pair(*(_dialogue(record, options.template(name), source) for name in ("chosen", "rejected")))
        if parts is None:
            return None
        prompt, chosen, rejected = parts
    else:
        prompt = _messages(record, options, "prompt", "user", source)
        chosen = _messages(record, options, "chosen", "assistant", source)
        rejected = _messages(record, options, "rejected", "assistant", source)
        if not prompt or not chosen or not rejected or chosen == rejected:
            return None
    return {"prompt": prompt, "chosen": chosen, "rejected": rejected, "kind": options.kind, "truth": ""}


def make_refusal(record: Record, options: RecordOptions, source: str) -> Row | None:
    """What should be said and what should not; a template in ``fields`` has precedence over a dialogue's answers."""
    completion: Messages | None = None
    rejected: Messages | None = None
    if options.dialogue:
        chosen, refused = (_dialogue(record, f"{{{name}}}", source) for name in ("chosen", "rejected"))
        parts = split_pair(chosen, refused) if options.turn == "last" else split_first(chosen, refused)
        if parts is None:
            return None
        prompt, completion, rejected = parts
    else:
        prompt = _messages(record, options, "prompt", "user", source)
    if completion is None or "completion" in options.fields:
        completion = _messages(record, options, "completion", "assistant", source)
    if rejected is None or "rejected" in options.fields:
        rejected = _messages(record, options, "rejected", "assistant", source)
    if not prompt or (completion == rejected and completion) or (not completion and options.held_out != 1):
        return None
    return {"prompt": prompt, "completion": completion, "rejected": rejected, "kind": options.kind}


def _dialogue(record: Record, template: str, source: str) -> Messages:
    return parse_dialogue(render(template, record, source))


def make_choice(record: Record, options: RecordOptions, source: str) -> Row | None:
    texts = _choices(record, options, source)
    place = _place(_text(record, options, "answer", source), texts)
    question = _text(record, options, "question", source)
    if place is None or not question:
        return None
    return {"question": question, "choices": texts, "answer": place, "kind": options.kind}


def _choices(record: Record, options: RecordOptions, source: str) -> list[str]:
    slot = _PLACES.fullmatch(options.template("choices"))
    choices = field_of(record, slot.group(1), source) if slot else None
    if not isinstance(choices, Sequence) or isinstance(choices, str) or len(choices) < 2:
        raise DataError(
            f"The source {source!r} needs a field with a list of choices; set fields.choices to '{{name}}'."
        )
    return [text_of(choice) for choice in choices]


def _place(answer: str, choices: Sequence[str]) -> int | None:
    """Where the right choice stands: the answer may be its text, its number from 0, or its letter."""
    if answer in choices:
        return choices.index(answer)
    place = int(answer) if answer.isdigit() else -1
    if len(answer) == 1 and answer.isalpha():
        place = ord(answer.upper()) - ord("A")
    return place if 0 <= place < len(choices) else None


def make_unknown(record: Record, options: RecordOptions, source: str) -> Row | None:
    """A question with its answer and other right ones; only ``answer: ""`` says that no true answer exists."""
    question = _text(record, options, "question", source)
    answers = _answers(record, options, source)
    if not question or (not answers and not is_constant(options.template("answer"))):
        return None
    answer, *aliases = answers or [""]
    for alias in _list(value_of(options.template("aliases"), record, source)):
        if alias and alias != answer and alias not in aliases:
            aliases.append(alias)
    return {"question": question, "answer": answer, "aliases": aliases, "kind": options.kind or source}


def _answers(record: Record, options: RecordOptions, source: str) -> list[str]:
    if options.template("choices"):
        texts = _choices(record, options, source)
        place = _place(_text(record, options, "answer", source), texts)
        return [] if place is None else [texts[place]]
    found = _list(value_of(options.template("answer"), record, source))
    return [text for text in (_clean(answer, options) for answer in found) if text]


def _list(value: Any) -> list[str]:
    """A field as texts: its items if it is a list, else itself."""
    items = value if isinstance(value, Sequence) and not isinstance(value, str) else [value]
    return [text for text in (text_of(item).strip() for item in items) if text]


MAKERS: Mapping[str, Callable[[Record, RecordOptions, str], Row | None]] = {
    "text": make_text,
    "chat": make_chat,
    "preference": make_preference,
    "choice": make_choice,
    "refusal": make_refusal,
    "unknown": make_unknown,
    "needle": make_text,
}
