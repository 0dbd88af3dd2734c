"""Long documents with a hidden pass key, made of real text: what a longer context is measured by."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ...core.data.hashing import digest, stream
from ...core.data.source import Split
from ...registry.errors import DataError

if TYPE_CHECKING:
    import numpy as np

DEPTHS = 5
KEY_SHARE = 0.2
#: Three classes that share no word, each word common enough to be one token of most tokenizers.
LETTERS = "bcdefghjklmnpqrstuvwxyz"
DIGITS = "0123456789"
COLOURS = ("black", "blue", "brown", "gold", "green", "grey", "red", "silver", "white", "yellow")
_SENTENCE = "the pass key is {key} ."
_QUESTION = "the pass key is"
_FIXED_WORDS = 15  # the hidden sentence has 8, the question 4, the answer 3


def needle_rows(
    texts: Sequence[str], split: Split, lengths: Sequence[int], count: int, source: str
) -> list[dict[str, Any]]:
    """Documents of ``lengths`` words (answer included), ``count`` of each, that hold a pass key at one of five depths.

    A key is a letter, a digit and a colour; a fifth of the keys is kept for held-out rows. The words around it are runs
    of the texts; ``DataError`` if these are too short for the longest document. ``text`` ends by asking for the key,
    ``answer`` continues it, ``kind`` is the length.
    """
    if not texts:
        return []
    rng = stream("needles", digest(list(texts)), split)
    words = " ".join(texts[place] for place in rng.permutation(len(texts))).split()
    if len(words) < max(lengths):
        raise DataError(
            f"The source {source!r} has {len(words)} words of {split} text, too few for a document of {max(lengths)}; "
            "give it more text, raise held_out, or shorten needle_words."
        )
    keys = _keys(split)
    rows = []
    for length in lengths:
        for number in range(count):
            depth = number % DEPTHS / (DEPTHS - 1)
            key = keys[int(rng.integers(len(keys)))]
            rows.append(
                {"text": _document(words, length, depth, key, rng), "answer": key, "kind": str(length), "depth": depth}
            )
    return [rows[place] for place in rng.permutation(len(rows))]


def _document(words: Sequence[str], length: int, depth: float, key: str, rng: np.random.Generator) -> str:
    room = length - _FIXED_WORDS
    start = int(rng.integers(len(words) - room + 1))
    hay = words[start : start + room]
    place = round(depth * len(hay))
    return " ".join([*hay[:place], _SENTENCE.format(key=key), *hay[place:], _QUESTION])


def _keys(split: Split) -> list[str]:
    """The keys of a split, the same for all sources."""
    keys = [f"{letter} {digit} {colour}" for letter in LETTERS for digit in DIGITS for colour in COLOURS]
    order = stream("needles", "keys").permutation(len(keys))
    cut = round(KEY_SHARE * len(keys))
    return [keys[place] for place in (order[:cut] if split == "heldout" else order[cut:])]
