"""Rows that say what should be said and what should not: both answers tokenised, drawn by kind."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ...registry.errors import ConfigError, DataError
from ...registry.suggest import did_you_mean, listing
from ..config.schema import BatchSection
from .chat import encode_chats
from .corpus import Corpus
from .hashing import digest
from .mixture import deal
from .order import Order, order_rows
from .prepared import encoded_answers, tokenizer_key
from .source import Split

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedTokenizerFast

    Places = Mapping[str, np.ndarray[Any, np.dtype[np.int64]]]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ContrastRows:
    """Rows of one split: input_ids, assistant_masks (prompt and what should be said), rejected_ids, rejected_masks
    (prompt and what should not be said, empty where nothing is known), domain, and kind as a ``ClassLabel``.

    ``members`` are the row numbers of each kind; ``too_long`` counts rows that were left out, ``cut`` rejected answers
    that were, and ``unanswered`` rows with nothing to say.
    """

    rows: Dataset
    members: Places
    too_long: int
    cut: int
    unanswered: int


def contrast_rows(
    corpus: Corpus, tokenizer: PreTrainedTokenizerFast, length: int, view: str, split: Split, kinds: Sequence[str]
) -> ContrastRows:
    """Tokenise both answers of every row of the named kinds; made once per corpus.

    ``DataError`` for a view without rejected answers, or if nothing that is said fits into ``length`` tokens.
    """

    def make() -> ContrastRows:
        rows = corpus.rows(view, split, kinds)
        if split == "heldout" and not any(rows["completion"][:]):
            # Prompts to be judged by alone: there is nothing to compute a loss on.
            return ContrastRows(rows=_labelled({}, (), ""), members={}, too_long=0, cut=0, unanswered=len(rows))
        if "rejected" not in rows.column_names:
            raise DataError(f"The view {view!r} does not say what should not be said (rejected); choose another view.")
        said = encoded_answers(corpus, tokenizer, length, view, split, kinds)
        paired = [place for place, answer in enumerate(rows["rejected"][:]) if answer]
        unsaid: dict[int, tuple[list[int], list[int]]] = {}
        if paired:
            other = rows.remove_columns("completion").rename_column("rejected", "completion").select(paired)
            found = encode_chats(tokenizer, other, length)
            unsaid = {
                paired[n]: pair for n, pair in zip(found.rows, zip(found.ids, found.masks, strict=True), strict=True)
            }
        kind = np.asarray(rows["kind"][:], dtype=object)[said.rows]
        names = sorted(set(corpus.rows(view, "train", kinds).unique("kind")) | set(kind.tolist()))
        numbers = {name: number for number, name in enumerate(corpus.domains)}
        columns: dict[str, list[Any]] = {
            "input_ids": said.ids,
            "assistant_masks": said.masks,
            "rejected_ids": [unsaid.get(place, ([], []))[0] for place in said.rows],
            "rejected_masks": [unsaid.get(place, ([], []))[1] for place in said.rows],
            "domain": [numbers[name] for name in said.domain],
            "kind": [names.index(name) for name in kind],
        }
        key = digest(corpus.fingerprint(), tokenizer_key(tokenizer), length, view, split, list(kinds))
        return ContrastRows(
            rows=_labelled(columns, names, key),
            members={name: np.flatnonzero(kind == name) for name in sorted(set(kind.tolist()))},
            too_long=said.too_long,
            cut=len(paired) - len(unsaid),
            unanswered=said.unanswered,
        )

    return corpus.once(("contrast", tokenizer_key(tokenizer), length, view, split, tuple(kinds)), make)


def order_by_kind(
    members: Places, shares: Mapping[str, float], *, steps: int, rows: int, first: int, key: Sequence[Any]
) -> Order:
    """Draw the rows of every step by the kinds' shares, each kind within one row of its share of any beginning.

    Without ``shares`` each kind is drawn as often as there are rows of it. ``Order.shares`` and ``epochs`` are by
    kind. ``ConfigError`` for a share of a kind that no row has.
    """
    for kind in shares:
        if kind not in members:
            raise ConfigError(
                f"options.shares names the kind {kind!r}, which no training row has.{did_you_mean(kind, members)} "
                f"Kinds: {listing(members)}."
            )
    natural = {kind: float(len(places)) for kind, places in members.items()}
    dealt = deal(BatchSection(mixture=shares), list(members), steps=first + steps, rows=rows, natural=natural)
    return order_rows(dealt, members, key, first)


def _labelled(columns: Mapping[str, Sequence[Any]], kinds: Sequence[str], fingerprint: str) -> Dataset:
    import pyarrow as pa
    from datasets import ClassLabel, Dataset, DatasetInfo, Features, List, Value

    tokens = List(Value("int32"))
    features = Features(
        {
            **dict.fromkeys(("input_ids", "assistant_masks", "rejected_ids", "rejected_masks"), tokens),
            "domain": Value("int64"),
            "kind": ClassLabel(names=list(kinds)),
        }
    )
    table = pa.table({name: columns.get(name, []) for name in features}, schema=features.arrow_schema)
    return Dataset(table, info=DatasetInfo(features=features), fingerprint=fingerprint)
