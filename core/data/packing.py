"""Packing: documents of one domain laid end to end and cut into rows of one length, without padding.

Positions restart at every document, which is what makes attention stop there (transformers reads document
borders from ``position_ids`` when no attention mask is given and the cache is off).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING

import numpy as np

from ...registry.errors import DataError

if TYPE_CHECKING:
    import numpy.typing as npt
    from transformers import PreTrainedTokenizerFast

    Ints = npt.NDArray[np.int32]

IGNORED = -100
_CHUNK_CHARACTERS = 4_000_000


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Packed:
    """Rows of one length. ``leftover`` counts tokens at the ends of domains that filled no row."""

    ids: Ints  # shape: (R, L)
    positions: Ints  # shape: (R, L)
    labels: Ints  # shape: (R, L); -100 where nothing is learnt
    domain: Ints  # shape: (R,)
    documents: int
    leftover: int

    def __len__(self) -> int:
        return len(self.ids)

    def members(self, domains: int) -> list[npt.NDArray[np.int64]]:
        """Row numbers of each domain."""
        return [np.flatnonzero(self.domain == number) for number in range(domains)]


def encode(tokenizer: PreTrainedTokenizerFast, texts: Iterable[str]) -> Iterator[list[int]]:
    """Token ids of every text, without special tokens, tokenised in large batches."""
    backend = tokenizer.backend_tokenizer
    for batch in _batches(texts):
        backend.no_truncation()  # whatever an earlier call of the tokenizer left set
        backend.no_padding()
        for encoding in backend.encode_batch_fast(batch, add_special_tokens=False):
            yield encoding.ids


def _batches(texts: Iterable[str]) -> Iterator[list[str]]:
    batch: list[str] = []
    size = 0
    for text in texts:
        batch.append(text)
        size += len(text)
        if size >= _CHUNK_CHARACTERS or len(batch) >= 20_000:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def separator_of(tokenizer: PreTrainedTokenizerFast) -> int:
    """The token between documents; ``DataError`` if the tokenizer has none."""
    if tokenizer.eos_token_id is None:
        raise DataError("The tokenizer has no eos token, which separates packed documents; add one to it.")
    return int(tokenizer.eos_token_id)


def pack_text(documents: Sequence[tuple[int, Iterable[Sequence[int]]]], length: int, separator: int) -> Packed:
    """Pack token lists, given as (domain, documents) pairs, into rows.

    The stream of a domain is ``document separator document separator ...``. Every second document starts at the
    separator before it, the others after it: a model then knows text that begins with the separator (as
    evaluation scores it) and text that begins bare (as prompts give it). Nothing but the mask depends on this.
    """
    rows = [_cut(domain, tokens, length, separator) for domain, tokens in documents]
    return _join(rows, length)


def pack_chats(chats: Sequence[tuple[int, Sequence[tuple[Sequence[int], Sequence[int]]]]], length: int) -> Packed:
    """Pack tokenised chats, given as (domain, (ids, assistant mask) pairs); only assistant tokens are learnt.

    A chat that a row border cuts is learnt only up to the border: its rest stands without its question.
    """
    return _join([_cut_chats(domain, pairs, length) for domain, pairs in chats], length)


def _join(rows: Sequence[Packed], length: int) -> Packed:
    empty = np.empty((0, length), dtype=np.int32)
    return Packed(
        ids=np.concatenate([empty, *(row.ids for row in rows)]),
        positions=np.concatenate([empty, *(row.positions for row in rows)]),
        labels=np.concatenate([empty, *(row.labels for row in rows)]),
        domain=np.concatenate([np.empty(0, dtype=np.int32), *(row.domain for row in rows)]),
        documents=sum(row.documents for row in rows),
        leftover=sum(row.leftover for row in rows),
    )


def _flatten(parts: Iterable[Sequence[int]]) -> tuple[Ints, npt.NDArray[np.int64]]:
    """All numbers of all parts in a row, and each part's size."""
    blocks, sizes = [], []
    parts = iter(parts)
    while chunk := [part for _, part in zip(range(20_000), parts, strict=False)]:
        lengths = [len(part) for part in chunk]
        blocks.append(np.fromiter(chain.from_iterable(chunk), dtype=np.int32, count=sum(lengths)))
        sizes += lengths
    return np.concatenate([np.empty(0, dtype=np.int32), *blocks]), np.asarray(sizes, dtype=np.int64)


def _cut(domain: int, documents: Iterable[Sequence[int]], length: int, separator: int) -> Packed:
    flat, sizes = _flatten([*document, separator] for document in documents if len(document))
    begins = np.cumsum(sizes) - sizes
    begins[1::2] -= 1
    rows = len(flat) // length
    ids = flat[: rows * length].reshape(rows, length)
    return Packed(
        ids=ids,
        positions=_positions(begins, rows, length),
        labels=ids,
        domain=np.full(rows, domain, dtype=np.int32),
        documents=len(sizes),
        leftover=len(flat) - rows * length,
    )


def _cut_chats(domain: int, pairs: Sequence[tuple[Sequence[int], Sequence[int]]], length: int) -> Packed:
    flat, sizes = _flatten(ids for ids, _ in pairs)
    mask, _ = _flatten(mask for _, mask in pairs)
    begins = np.cumsum(sizes) - sizes
    rows = len(flat) // length
    ids = flat[: rows * length].reshape(rows, length)
    learnt = mask[: rows * length].reshape(rows, length) > 0
    started = np.zeros(rows * length, dtype=bool)
    started[begins[begins < rows * length]] = True
    learnt &= np.maximum.accumulate(started.reshape(rows, length), axis=1)
    return Packed(
        ids=ids,
        positions=_positions(begins, rows, length),
        labels=np.where(learnt, ids, IGNORED).astype(np.int32),
        domain=np.full(rows, domain, dtype=np.int32),
        documents=len(sizes),
        leftover=len(flat) - rows * length,
    )


def _positions(begins: npt.NDArray[np.int64], rows: int, length: int) -> Ints:
    """Positions that count from 0 at each document's begin and at each row's begin."""
    starts = np.zeros(rows * length, dtype=bool)
    starts[begins[begins < rows * length]] = True
    grid = starts.reshape(rows, length)
    grid[:, 0] = True
    steps = np.arange(length, dtype=np.int32)
    last = np.maximum.accumulate(np.where(grid, steps, 0), axis=1)
    return np.asarray(steps - last, dtype=np.int32)
