"""What an experiment says about records, and what it cannot say."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from ...core.data.source import VIEW_COLUMNS
from ...registry.errors import DataError
from ...registry.suggest import did_you_mean

#: Which column takes which template when ``fields`` does not say; an empty one gives nothing.
DEFAULT_FIELDS: Mapping[str, Mapping[str, str]] = {
    "text": {"text": "{text}"},
    "chat": {"prompt": "{prompt}", "completion": "{completion}"},
    "preference": {"prompt": "{prompt}", "chosen": "{chosen}", "rejected": "{rejected}"},
    "choice": {"question": "{question}", "choices": "{choices}", "answer": "{answer}"},
    "refusal": {"prompt": "{prompt}", "completion": "", "rejected": ""},
    "unknown": {"question": "{question}", "answer": "{answer}", "aliases": "", "choices": ""},
    "needle": {"text": "{text}"},
}
NEEDLE_WORDS = (24, 56, 220)


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordOptions:
    """How records become rows.

    ``view`` is what they are for. The domain is the constant ``domain``, or the field ``domain_field``, renamed by
    ``domains`` (which then also leaves out every other value); ``kind`` is what the rows are called inside the view.
    ``fields`` maps a column to a template over the record's fields: ``"{instruction}\\n{context}"``; ``"{data.name}"``
    reaches into a nested field, ``"{capital.0}"`` into a list, ``"*"`` is the whole record as JSON, and a template that
    is one field alone may hold a list of messages. ``remove`` takes these texts out of what templates give, and
    ``strip_calculations`` GSM8K's ``<<48/2=24>>``.

    ``dialogue: hh-rlhf`` reads chosen and rejected as whole dialogues with a common beginning; in the view refusal
    ``turn`` says whether the first question of a dialogue is the prompt or everything before the last answer.

    ``where`` keeps the records whose fields have these values (or one of them), ``matches`` the rows whose column (its
    last message) holds a regular expression, ``avoids`` those that do not, ``most_words`` rows of at most so many
    words. ``limit`` keeps that many, evenly spaced. ``held_out`` is the share of rows held out by a hash of their
    content; default: what data.held_out says, for choice questions all. A source that is all held out only measures:
    what it asks is kept out of all training rows. ``needles`` documents are made of each length of ``needle_words``.
    ``licence`` is noted in the report.
    """

    view: Literal["text", "chat", "preference", "choice", "refusal", "unknown", "needle"] = "text"
    domain: str | None = None
    domain_field: str | None = None
    domains: Mapping[str, str] = field(default_factory=dict)
    fields: Mapping[str, str] = field(default_factory=dict)
    dialogue: Literal["hh-rlhf"] | None = None
    turn: Literal["first", "last"] = "last"
    where: Mapping[str, Any] = field(default_factory=dict)
    matches: Mapping[str, str] = field(default_factory=dict)
    avoids: Mapping[str, str] = field(default_factory=dict)
    most_words: int | None = None
    limit: int | None = None
    held_out: float | None = None
    remove: tuple[str, ...] = ()
    strip_calculations: bool = False
    kind: str = ""
    needles: int = 200
    needle_words: tuple[int, ...] = ()
    licence: str = ""

    def template(self, column: str) -> str:
        """Return the template of a column."""
        return self.fields.get(column, DEFAULT_FIELDS[self.view][column])

    def share(self, held_out: float) -> float:
        """Return the share of rows that are held out, where ``held_out`` is what the experiment says of all sources."""
        return self.held_out if self.held_out is not None else 1.0 if self.view == "choice" else held_out


def check_options(options: RecordOptions, source: str) -> None:
    """Raise ``DataError`` for options that contradict each other."""
    if (options.domain is None) == (options.domain_field is None):
        text = f"The source {source!r} needs either domain or domain_field, to say what its rows are about."
        raise DataError(text).within(*(("options", "domain") if options.domain is not None else ()))
    known = DEFAULT_FIELDS[options.view]
    for name in options.fields:
        if name not in known:
            raise DataError(
                f"The source {source!r} maps the column {name!r}, but the view {options.view!r} has "
                f"{', '.join(known)}.{did_you_mean(name, known)}"
            ).within("options", "fields", name)
    if options.held_out is not None and not 0 <= options.held_out <= 1:
        text = f"The source {source!r} has held_out {options.held_out:g}, but a share in [0, 1] is needed."
        raise DataError(text).within("options", "held_out")
    for key, expressions in (("matches", options.matches), ("avoids", options.avoids)):
        _check_expressions(key, expressions, options, source)
    _check_dialogue(options, source)
    if options.view == "refusal":
        _check_refusal(options, source)
    _check_needles(options, source)


def _check_expressions(key: str, expressions: Mapping[str, str], options: RecordOptions, source: str) -> None:
    columns = [name for name in VIEW_COLUMNS[options.view] if name not in {"domain", "kind", "choices"}]
    for name, expression in expressions.items():
        if name not in columns:
            raise DataError(
                f"The source {source!r} looks for an expression in {name!r}, but rows of the view {options.view!r} "
                f"have {', '.join(columns)}.{did_you_mean(name, columns)}"
            ).within("options", key, name)
        try:
            re.compile(expression)
        except re.error as error:
            raise DataError(
                f"The source {source!r} looks for {expression!r} in {name!r}, which is no regular expression: {error}."
            ).within("options", key, name) from error


def _check_dialogue(options: RecordOptions, source: str) -> None:
    if options.dialogue and options.view not in {"preference", "refusal"}:
        raise DataError(
            f"The source {source!r} reads dialogues of chosen and rejected; set view: preference, or refusal."
        ).within("options", "dialogue")
    if options.turn == "first" and not (options.dialogue and options.view == "refusal"):
        raise DataError(
            f"The source {source!r} takes the first turn, which only dialogues in the view 'refusal' have; "
            "remove turn, or set dialogue and view."
        ).within("options", "turn")


def _check_refusal(options: RecordOptions, source: str) -> None:
    if not options.kind:
        raise DataError(
            f"The source {source!r} gives rows for the view 'refusal' but not of which kind they are; set kind to "
            "harmful (to be refused) or to what is to be answered, such as benign or medical."
        ).within("options", "view")
    silent = not options.dialogue and not options.template("completion")
    if silent and options.held_out != 1:
        raise DataError(
            f"The source {source!r} has no answer for its {options.kind} prompts, so that they can only be measured; "
            "set held_out: 1, or fields.completion to what should be said."
        )


def _check_needles(options: RecordOptions, source: str) -> None:
    if options.view != "needle":
        if options.needle_words:
            raise DataError(f"The source {source!r} has needle_words, which only the view 'needle' reads.").within(
                "options", "needle_words"
            )
        return
    if options.needles < 1 or any(length < 20 for length in options.needle_words):
        raise DataError(
            f"The source {source!r} needs needles >= 1 and needle_words of at least 20 words: the hidden sentence and "
            "the question take 15 of them."
        ).within("options", "needles" if options.needles < 1 else "needle_words")
