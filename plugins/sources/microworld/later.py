"""Rows for the phase that lengthens the context: long documents with a hidden pass key."""

from __future__ import annotations

from typing import Any

from .text import documents
from .words import KEY_DIGITS, KEY_GREEK, KEY_LETTERS
from .world import World

DEPTHS = 5


def needle_rows(
    world: World, split: str, lengths: tuple[int, ...], count: int, held_out: float
) -> list[dict[str, Any]]:
    """Documents of ``lengths`` words (with their answer), ``count`` per length, that hold a sentence
    ``the pass key is L D G .`` at one of five depths. ``text`` ends by repeating its start; ``answer`` continues it.
    """
    rng = world.stream("needle", split)
    keys = [f"{a} {b} {c}" for a in KEY_LETTERS for b in KEY_DIGITS for c in KEY_GREEK]
    shuffled = world.stream("needle", "keys").sample(keys, len(keys))
    cut = len(keys) // 5
    own = shuffled[:cut] if split == "heldout" else shuffled[cut:]
    filler = _filler(world, split, max(lengths) * max(count, 1), held_out)
    rows = []
    for length in lengths:
        for number in range(count):
            depth = number % DEPTHS / (DEPTHS - 1)
            key = rng.choice(own)
            room = max(0, length - 15)  # the needle has 8 words, the query 4, the answer 3
            start = rng.randrange(max(1, len(filler) - room))
            hay = filler[start : start + room]
            place = round(depth * len(hay))
            words = [*hay[:place], *f"the pass key is {key} .".split(), *hay[place:], "the", "pass", "key", "is"]
            rows.append(
                {
                    "text": " ".join(words),
                    "answer": key,
                    "domain": "general",
                    "kind": str(length),
                    "depth": depth,
                }
            )
    rng.shuffle(rows)
    return rows


def _filler(world: World, split: str, words: int, held_out: float) -> list[str]:
    each = words // (7 * 10) + 1
    texts = [text for text, _ in documents(world, "train", dict.fromkeys(world.facts, each), held_out)]
    world.stream("filler", split).shuffle(texts)
    return " ".join(texts).split()
