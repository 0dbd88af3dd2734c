"""The held-out promise: no held-out document shares a run of n words with any training document, and no training row
with what a benchmark asks.

Words are runs of letters and digits, lower-cased. A document with fewer than n words is compared whole.
GPT-3 (Brown 2020, arXiv 2005.14165, appendix C) used the same rule with n = 13.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt

_WORD = re.compile(r"[^\W_]+")
_CHUNK_WORDS = 1_000_000
_BASE = np.uint64(0x9E3779B97F4A7C15 | 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Contamination:
    """Which held-out documents are clean: ``kept`` holds their indices in order; ``dropped`` counts the others,
    of which ``dropped_whole`` were short and equal to a training document."""

    kept: tuple[int, ...]
    dropped: int
    dropped_whole: int
    windows: int


class _Words:
    """64-bit hashes of words, each computed once."""

    def __init__(self) -> None:
        self._known: dict[str, int] = {}

    def hashes(self, text: str) -> list[int]:
        known = self._known
        found = []
        for word in _WORD.findall(text.lower()):
            value = known.get(word)
            if value is None:
                value = known[word] = int.from_bytes(hashlib.blake2b(word.encode(), digest_size=8).digest(), "big")
            found.append(value)
        return found


def _spans(hashes: npt.NDArray[np.uint64], width: int) -> npt.NDArray[np.uint64]:
    """Hash every run of ``width`` words: a polynomial in a fixed odd base, modulo 2^64. shape: (N,) -> (N-width+1,)"""
    total = np.zeros(len(hashes) - width + 1, dtype=np.uint64)
    for place in range(width):
        total = total * _BASE + hashes[place : place + len(total)]
    return total


def find_contamination(train: Iterable[str], heldout: Sequence[str], n: int = 13) -> Contamination:
    """Compare every held-out document with all training documents.

    Training text is read once, in chunks; what stays in memory are the held-out windows (8 bytes each).
    """
    words = _Words()
    short: dict[tuple[int, ...], list[int]] = {}
    spans, owners = [], []
    for number, text in enumerate(heldout):
        hashes = words.hashes(text)
        if len(hashes) < n:
            short.setdefault(tuple(hashes), []).append(number)
            continue
        spans.append(_spans(np.array(hashes, dtype=np.uint64), n))
        owners.append(np.full(len(spans[-1]), number, dtype=np.int64))
    values = np.concatenate(spans) if spans else np.empty(0, dtype=np.uint64)
    owner = np.concatenate(owners) if owners else np.empty(0, dtype=np.int64)
    wanted = np.unique(values)
    found = np.zeros(len(wanted), dtype=bool)
    whole: set[int] = set()
    batch: list[list[int]] = []
    size = 0

    def look() -> None:
        if batch and len(wanted):
            flat = np.fromiter((h for row in batch for h in row), dtype=np.uint64, count=size)
            ends = np.cumsum([len(row) for row in batch])
            runs = _spans(flat, n)
            inside = np.ones(len(runs), dtype=bool)
            for back in range(1, n):  # a run that crosses a document's end is nobody's
                crossing = ends[:-1] - back
                inside[crossing[(crossing >= 0) & (crossing < len(runs))]] = False
            runs = runs[inside]
            place = np.minimum(np.searchsorted(wanted, runs), len(wanted) - 1)
            found[place[wanted[place] == runs]] = True

    for text in train:
        hashes = words.hashes(text)
        if len(hashes) < n:
            whole.update(short.get(tuple(hashes), ()))
            continue
        batch.append(hashes)
        size += len(hashes)
        if size >= _CHUNK_WORDS:
            look()
            batch, size = [], 0
    look()
    dirty = {int(number) for number in owner[found[np.searchsorted(wanted, values)]]} if len(values) else set()
    kept = tuple(number for number in range(len(heldout)) if number not in dirty and number not in whole)
    return Contamination(kept=kept, dropped=len(heldout) - len(kept), dropped_whole=len(whole), windows=len(values))


def free_of(asked: Iterable[str], rows: Iterable[Sequence[str]], n: int = 13) -> tuple[int, ...]:
    """Return the places of the rows none of whose texts shares a run of ``n`` words with anything that is asked.

    A text of fewer than ``n`` words is compared whole with what is asked. Rows are read once; what stays in memory are
    the windows of what is asked.
    """
    words = _Words()
    short: set[tuple[int, ...]] = set()
    spans = []
    for text in asked:
        hashes = words.hashes(text)
        if len(hashes) < n:
            short.add(tuple(hashes))
        else:
            spans.append(_spans(np.array(hashes, dtype=np.uint64), n))
    wanted = np.unique(np.concatenate(spans)) if spans else np.empty(0, dtype=np.uint64)

    def shared(text: str) -> bool:
        hashes = words.hashes(text)
        if len(hashes) < n:
            return tuple(hashes) in short
        if not len(wanted):
            return False
        runs = _spans(np.array(hashes, dtype=np.uint64), n)
        return bool((wanted[np.minimum(np.searchsorted(wanted, runs), len(wanted) - 1)] == runs).any())

    return tuple(number for number, texts in enumerate(rows) if not any(shared(text) for text in texts))
