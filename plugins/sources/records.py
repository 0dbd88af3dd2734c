"""From raw records to the rows of a view: what is kept, how it is split, the columns that come of it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from ...core.data.corpus import spread
from ...core.data.hashing import unit
from ...core.data.source import VIEW_COLUMNS, Split
from ...registry.errors import DataError
from .makers import MAKERS, Row
from .needles import needle_rows
from .options import NEEDLE_WORDS, RecordOptions
from .templates import Record, field_of, text_of

#: Columns that rows of records have beyond those of their view.
MORE_COLUMNS: Mapping[str, tuple[str, ...]] = {"unknown": ("aliases",), "needle": ("depth",)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Rows:
    """The rows of both splits, column by column, and what was left out, by reason."""

    columns: Mapping[Split, Mapping[str, list[Any]]]
    read: int
    skipped: Mapping[str, int]

    def domains(self) -> set[str]:
        """All domains of all rows."""
        return {name for columns in self.columns.values() for name in columns["domain"]}


def read_rows(records: Iterable[Record], options: RecordOptions, source: str, held_out: float) -> Rows:
    """Turn records into rows. ``DataError`` for a missing field (with the nearest one) and when nothing is left."""
    kept: list[Row] = []
    skipped: dict[str, int] = {}
    read = 0
    for record in records:
        read += 1
        row, reason = _row(record, options, source)
        if row is not None:
            kept.append(row)
        else:
            skipped[reason] = skipped.get(reason, 0) + 1
    if not kept:
        why = ", ".join(f"{count} by {reason}" for reason, count in skipped.items()) or "there was none"
        raise DataError(f"The source {source!r} has no row left of {read} records ({why}); check its options.")
    if options.limit is not None and len(kept) > options.limit:
        import numpy as np

        skipped["limit"] = len(kept) - options.limit
        kept = [kept[place] for place in spread(np.arange(len(kept)), options.limit)]
    share = options.share(held_out)
    parts: dict[Split, list[Row]] = {"train": [], "heldout": []}
    key = VIEW_COLUMNS[options.view][0]
    for row in kept:
        parts["heldout" if unit(row[key]) < share else "train"].append(row)
    if options.view == "needle":
        parts = {split: _needles(rows, options, split, source) for split, rows in parts.items()}
    names = (*VIEW_COLUMNS[options.view], *MORE_COLUMNS.get(options.view, ()))
    columns: dict[Split, dict[str, list[Any]]] = {
        split: {name: [row[name] for row in rows] for name in names} for split, rows in parts.items()
    }
    return Rows(columns=columns, read=read, skipped=skipped)


def _row(record: Record, options: RecordOptions, source: str) -> tuple[Row | None, str]:
    """The row of a record, or the reason why it has none."""
    if not _wanted(record, options, source):
        return None, "where"
    domain = _domain(record, options, source)
    if domain is None:
        return None, "other domain"
    row = MAKERS[options.view](record, options, source)
    if row is None:
        return None, "empty or broken"
    if not all(_holds(row[name], expression) for name, expression in options.matches.items()):
        return None, "matches"
    if any(_holds(row[name], expression) for name, expression in options.avoids.items()):
        return None, "avoids"
    if options.most_words is not None and _words(row) > options.most_words:
        return None, "most_words"
    return {**row, "domain": domain}, ""


def _wanted(record: Record, options: RecordOptions, source: str) -> bool:
    for name, wanted in options.where.items():
        value = field_of(record, name, source)
        if value not in wanted if isinstance(wanted, list | tuple) else value != wanted:
            return False
    return True


def _domain(record: Record, options: RecordOptions, source: str) -> str | None:
    if options.domain_field is None:
        return options.domain
    value = text_of(field_of(record, options.domain_field, source))
    return options.domains.get(value) if options.domains else value


def _holds(value: Any, expression: str) -> bool:
    """Whether a column, or the last message of it, holds an expression; what says nothing holds none."""
    said = value if isinstance(value, str) else value[-1]["content"] if value else ""
    return bool(said) and re.search(expression, said) is not None


def _words(row: Row) -> int:
    """The words of what is asked and of the longest thing that is said to it."""
    asked, *said = (_count(value) for value in row.values())
    return asked + max(said, default=0)


def _count(value: Any) -> int:
    if isinstance(value, str):
        return len(value.split())
    if isinstance(value, list):
        return sum(_count(item["content"] if isinstance(item, Mapping) else item) for item in value)
    return 0


def _needles(rows: list[Row], options: RecordOptions, split: Split, source: str) -> list[Row]:
    """Documents with a pass key made of the rows' texts, domain by domain; a tenth as many are held out."""
    count = options.needles if split == "train" else -(-options.needles // 10)
    made: list[Row] = []
    for domain in sorted({row["domain"] for row in rows}):
        texts = [row["text"] for row in rows if row["domain"] == domain]
        found = needle_rows(texts, split, options.needle_words or NEEDLE_WORDS, count, source)
        made += [{**row, "domain": domain} for row in found]
    return made
