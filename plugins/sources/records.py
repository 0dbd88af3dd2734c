"""From raw records to the rows of a view: templates over fields, dialogues, a stable held-out split."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from ...core.data.corpus import spread
from ...core.data.hashing import unit
from ...core.data.source import VIEW_COLUMNS, Split
from ...registry.errors import DataError
from .dialogues import Messages, as_message, parse_dialogue, split_pair

Record = Mapping[str, Any]

#: Which column takes which template when ``fields`` does not say.
DEFAULT_FIELDS: Mapping[str, Mapping[str, str]] = {
    "text": {"text": "{text}"},
    "chat": {"prompt": "{prompt}", "completion": "{completion}"},
    "preference": {"prompt": "{prompt}", "chosen": "{chosen}", "rejected": "{rejected}"},
    "choice": {"question": "{question}", "choices": "{choices}", "answer": "{answer}"},
}
_SLOT = re.compile(r"\{([^{}]+)\}")
_CALCULATION = re.compile(r"<<[^<>]*>>")


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordOptions:
    """How records become rows.

    ``view`` is what they are for. The domain is the constant ``domain``, or the field ``domain_field``, renamed by
    ``domains`` (which then also leaves out every other value). ``fields`` maps a column to a template over the
    record's fields: ``"{instruction}\\n{context}"``; ``"{data.name}"`` reaches into a nested field, ``"*"`` is the
    whole record as JSON, and a template that is one field alone may hold a list of messages. ``dialogue: hh-rlhf``
    reads chosen and rejected as whole dialogues with a common beginning. ``where`` keeps the records whose fields
    have these values (or one of them). ``limit`` keeps that many, evenly spaced. ``held_out`` is the share of rows
    held out by a hash of their content; default: what data.held_out says, for choice questions all.
    ``strip_calculations`` takes GSM8K's ``<<48/2=24>>`` out of answers. ``licence`` is noted in the report.
    """

    view: Literal["text", "chat", "preference", "choice"] = "text"
    domain: str | None = None
    domain_field: str | None = None
    domains: Mapping[str, str] = field(default_factory=dict)
    fields: Mapping[str, str] = field(default_factory=dict)
    dialogue: Literal["hh-rlhf"] | None = None
    where: Mapping[str, Any] = field(default_factory=dict)
    limit: int | None = None
    held_out: float | None = None
    strip_calculations: bool = False
    kind: str = ""
    licence: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rows:
    """The rows of both splits, column by column, and what was left out, by reason."""

    columns: Mapping[Split, Mapping[str, list[Any]]]
    read: int
    skipped: Mapping[str, int]

    def domains(self) -> set[str]:
        """All domains of all rows."""
        return {name for columns in self.columns.values() for name in columns["domain"]}


def check_options(options: RecordOptions, source: str) -> None:
    """Raise ``DataError`` for options that contradict each other."""
    if (options.domain is None) == (options.domain_field is None):
        raise DataError(f"The source {source!r} needs either domain or domain_field, to say what its rows are about.")
    if options.dialogue and options.view != "preference":
        raise DataError(f"The source {source!r} reads dialogues of chosen and rejected; set view: preference.")
    known = DEFAULT_FIELDS[options.view]
    for name in options.fields:
        if name not in known:
            raise DataError(
                f"The source {source!r} maps the column {name!r}, but the view {options.view!r} has "
                f"{', '.join(known)}{_near(name, known)}."
            )
    if options.held_out is not None and not 0 <= options.held_out <= 1:
        raise DataError(f"The source {source!r} has held_out {options.held_out}, but a share in [0, 1] is needed.")


def read_rows(records: Iterable[Record], options: RecordOptions, source: str, held_out: float) -> Rows:
    """Turn records into rows. ``DataError`` for a missing field (with the nearest one) and when nothing is left."""
    make = _MAKERS[options.view]
    skipped: dict[str, int] = {}
    kept: list[dict[str, Any]] = []
    read = 0
    for record in records:
        read += 1
        row = None
        if not _matches(record, options, source):
            reason = "where"
        elif (domain := _domain(record, options, source)) is None:
            reason = "other domain"
        elif (row := make(record, options, source)) is None:
            reason = "empty or broken"
        else:
            kept.append({**row, "domain": domain})
            continue
        skipped[reason] = skipped.get(reason, 0) + 1
    if not kept:
        why = ", ".join(f"{count} by {reason}" for reason, count in skipped.items()) or "there was none"
        raise DataError(f"The source {source!r} has no row left of {read} records ({why}); check its options.")
    if options.limit is not None and len(kept) > options.limit:
        import numpy as np

        skipped["limit"] = len(kept) - options.limit
        kept = [kept[place] for place in spread(np.arange(len(kept)), options.limit)]
    share = options.held_out if options.held_out is not None else 1.0 if options.view == "choice" else held_out
    parts: dict[Split, list[dict[str, Any]]] = {"train": [], "heldout": []}
    key = VIEW_COLUMNS[options.view][0]
    for row in kept:
        parts["heldout" if unit(row[key]) < share else "train"].append(row)
    names = VIEW_COLUMNS[options.view]
    columns: dict[Split, dict[str, list[Any]]] = {
        split: {name: [row[name] for row in rows] for name in names} for split, rows in parts.items()
    }
    return Rows(columns=columns, read=read, skipped=skipped)


def render(template: str, record: Record, source: str) -> str:
    """Fill a template with a record's fields; other values than text are written as JSON."""
    if template == "*":
        return json.dumps(record, ensure_ascii=False)
    return _SLOT.sub(lambda match: _text(_get(record, match.group(1), source)), template).strip()


def _text(value: Any) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _near(name: str, names: Iterable[str]) -> str:
    near = difflib.get_close_matches(name, list(names), n=1)
    return f"; did you mean {near[0]!r}?" if near else ""


def _get(record: Record, name: str, source: str) -> Any:
    if name in record:
        return record[name]
    value: Any = record
    for part in name.split("."):
        if not isinstance(value, Mapping) or part not in value:
            raise DataError(
                f"The source {source!r} has a record without the field {name!r}{_near(name, record)}; "
                f"it has {', '.join(map(str, record))}."
            )
        value = value[part]
    return value


def _matches(record: Record, options: RecordOptions, source: str) -> bool:
    for name, wanted in options.where.items():
        value = _get(record, name, source)
        if value not in wanted if isinstance(wanted, list | tuple) else value != wanted:
            return False
    return True


def _domain(record: Record, options: RecordOptions, source: str) -> str | None:
    if options.domain_field is None:
        return options.domain
    value = _text(_get(record, options.domain_field, source))
    return options.domains.get(value) if options.domains else value


def _template(options: RecordOptions, column: str) -> str:
    return options.fields.get(column, DEFAULT_FIELDS[options.view][column])


def _messages(record: Record, options: RecordOptions, column: str, role: str, source: str) -> Messages:
    """A column as messages: what is a list (or one) of messages already, else one message with the text."""
    template = _template(options, column)
    alone = _SLOT.fullmatch(template)
    value = _get(record, alone.group(1), source) if alone else None
    if isinstance(value, Mapping):
        value = [value]
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [as_message(item, source) for item in value]
    text = render(template, record, source)
    if options.strip_calculations and role == "assistant":
        text = _CALCULATION.sub("", text)
    return [{"role": role, "content": text}] if text else []


def _make_text(record: Record, options: RecordOptions, source: str) -> dict[str, Any] | None:
    text = render(_template(options, "text"), record, source)
    if options.strip_calculations:
        text = _CALCULATION.sub("", text)
    return {"text": text} if text else None


def _make_chat(record: Record, options: RecordOptions, source: str) -> dict[str, Any] | None:
    prompt = _messages(record, options, "prompt", "user", source)
    completion = _messages(record, options, "completion", "assistant", source)
    if not prompt or not completion:
        return None
    return {"prompt": prompt, "completion": completion, "kind": options.kind, "check": ""}


def _make_preference(record: Record, options: RecordOptions, source: str) -> dict[str, Any] | None:
    if options.dialogue:
        chosen, rejected = (
            parse_dialogue(render(_template(options, name), record, source)) for name in ("chosen", "rejected")
        )
        parts = split_pair(chosen, rejected)
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


def _make_choice(record: Record, options: RecordOptions, source: str) -> dict[str, Any] | None:
    slot = _SLOT.fullmatch(_template(options, "choices"))
    choices = _get(record, slot.group(1), source) if slot else None
    if not isinstance(choices, Sequence) or isinstance(choices, str) or len(choices) < 2:
        raise DataError(
            f"The source {source!r} needs a field with a list of choices; set fields.choices to '{{name}}'."
        )
    texts = [_text(choice) for choice in choices]
    answer = render(_template(options, "answer"), record, source)
    if answer in texts:
        place = texts.index(answer)
    elif answer.isdigit():
        place = int(answer)
    elif len(answer) == 1 and answer.isalpha():
        place = ord(answer.upper()) - ord("A")
    else:
        place = -1
    if not 0 <= place < len(texts):
        return None
    question = render(_template(options, "question"), record, source)
    return {"question": question, "choices": texts, "answer": place, "kind": options.kind} if question else None


_MAKERS: Mapping[str, Callable[[Record, RecordOptions, str], dict[str, Any] | None]] = {
    "text": _make_text,
    "chat": _make_chat,
    "preference": _make_preference,
    "choice": _make_choice,
}
