"""Rows for the phase that lengthens the context: long documents with a hidden pass key."""

from __future__ import annotations

from itertools import product
from typing import Any

from .text import documents
from .words import THEMES
from .world import World

DEPTHS = 5
#: Raised whenever the same configuration gives other needle rows; the random streams of other views do not hear of it.
NEEDLES = 2

_VALUES = {name: values for theme in THEMES for name, values in theme.attributes.items()}
#: The words of a pass key by place: three classes without a word in common, all of them words that training text has
#: taught, so that reading a key is looked for and not spelling one.
KEYS = (_VALUES["genre"], _VALUES["colour"], _VALUES["depot"])


def needle_rows(
    world: World, split: str, lengths: tuple[int, ...], count: int, held_out: float
) -> list[dict[str, Any]]:
    """Documents of ``lengths`` words (with their answer), ``count`` per length, that hold a sentence
    ``the pass key is a b c .`` at one of five depths. ``text`` ends by repeating its start; ``answer`` continues it.

    The words of a key stand nowhere else in a document; a fifth of all keys is held out.
    """
    rng = world.stream("needle", split)
    keys = [" ".join(words) for words in product(*KEYS)]
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
    used = {word for words in KEYS for word in words}
    told = documents(world, "train", dict.fromkeys(world.facts, each), held_out)
    texts = [text for text, _ in told if not used & set(text.split())]
    world.stream("filler", split).shuffle(texts)
    return " ".join(texts).split()
