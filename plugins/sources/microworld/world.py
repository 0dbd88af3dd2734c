"""The world itself: named entities, what is true of them, and how well each fact is told."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ....registry.errors import DataError
from .phrases import FAMILIES, GOOD_STYLES, STORY_SENTENCES, WRAPPERS
from .words import DOMAINS, OPERANDS, OPERATIONS, STORY, THEMES, Theme

if TYPE_CHECKING:
    from .source import MicroworldConfig

#: Raised whenever the same configuration gives other rows; part of every random stream and of the fingerprint.
VERSION = 1

ONSETS = ("ba", "de", "ki", "lo", "mu", "na", "po", "ra", "se", "ti", "vu")
#: How often a fact of each kind is told, relative to a head fact.
WEIGHTS = {"head": 1.0, "rare": 0.06, "contested": 1.0}
#: Share of the draws of a contested fact that tell its true value.
MAJORITY = 0.6
#: Every fifth entity never stands in a training question.
UNASKED_EVERY = 5
RARE_SUMS = 0.15


@dataclass(frozen=True, slots=True, kw_only=True)
class Fact:
    """One fact: its slots for the templates, its value, its rival (contested facts), and the values it could have.

    ``kind`` is head, rare, contested, unknown (a name never told) or hard (a name made of two told ones);
    ``value`` is empty for the last two. ``asked`` tells whether training questions ask for it.
    """

    name: str
    domain: str
    family: str
    kind: str
    slots: dict[str, str]
    value: str
    rival: str
    values: tuple[str, ...]
    entity: int
    asked: bool

    @property
    def weight(self) -> float:
        return WEIGHTS[self.kind]


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """All facts by domain, told and untold, and the streams that everything is drawn from."""

    seed: int
    facts: dict[str, tuple[Fact, ...]]
    untold: dict[str, tuple[Fact, ...]]

    def stream(self, *parts: str) -> random.Random:
        """A random stream named by its parts, the same on every machine."""
        return random.Random(":".join(("microworld", str(VERSION), str(self.seed), *parts)))


def build_world(config: MicroworldConfig) -> World:
    """Make the world of a seed. Raises ``DataError`` when more entities are asked for than there are names."""
    rng = random.Random(f"microworld:{VERSION}:{config.seed}:names")
    known = config.head + config.rare + config.contested
    endings = _endings(rng, len(THEMES) * (known + config.unknown))
    facts: dict[str, tuple[Fact, ...]] = {}
    untold: dict[str, tuple[Fact, ...]] = {}
    for theme in THEMES:
        own = [next(endings) for _ in range(known + config.unknown)]
        names = [rng.choice(ONSETS) + ending for ending in own]
        kinds = ["head"] * config.head + ["rare"] * config.rare + ["contested"] * config.contested
        facts[theme.domain] = tuple(_told(rng, theme, names[:known], kinds))
        hard = _recombined(rng, names[:known], own[:known], config.hard)
        untold[theme.domain] = tuple(
            fact
            for kind, group in (("unknown", names[known:]), ("hard", hard))
            for number, name in enumerate(group)
            for fact in _untold(theme, kind, number, name)
        )
    facts["mathematics"] = tuple(_arithmetic(rng))
    return World(seed=config.seed, facts={name: facts[name] for name in DOMAINS}, untold=untold)


def _endings(rng: random.Random, count: int) -> Iterator[str]:
    syllables = [
        onset + vowel + coda
        for onset in ("b", "d", "f", "g", "j", "k", "l", "m", "n", "p", "r", "s", "t", "v", "z")
        for vowel in "aeiou"
        for coda in ("f", "k", "l", "m", "n", "r", "s", "x", "z")
    ]
    taken = _common_words()
    free = [s for s in syllables if not any(onset + s in taken for onset in ONSETS)]
    if count > len(free):
        raise DataError(
            f"The microworld has {len(free)} unique names, but {count} entities are asked for; "
            "lower head, rare, contested or unknown."
        )
    return iter(rng.sample(free, count))


def _common_words() -> set[str]:
    texts = [*STORY_SENTENCES, *WRAPPERS, *GOOD_STYLES]
    for family in FAMILIES.values():
        texts += [*family.statements, *family.prefixes, *family.leads]
    words = {word for text in texts for word in text.split()}
    words |= {word for group in STORY.values() for word in group}
    return words | {value for theme in THEMES for values in theme.attributes.values() for value in values}


def _balanced(rng: random.Random, values: tuple[str, ...], count: int) -> list[str]:
    """Draw values so that each is used equally often up to one: guessing the commonest gains nothing."""
    drawn: list[str] = []
    while len(drawn) < count:
        drawn += rng.sample(values, len(values))
    return drawn[:count]


def _told(rng: random.Random, theme: Theme, names: list[str], kinds: list[str]) -> list[Fact]:
    facts = []
    columns = {attribute: _balanced(rng, values, len(names)) for attribute, values in theme.attributes.items()}
    for number, (name, kind) in enumerate(zip(names, kinds, strict=True)):
        for attribute, values in theme.attributes.items():
            value = columns[attribute][number]
            rival = rng.choice([other for other in values if other != value])
            facts.append(
                Fact(
                    name=f"{name}.{attribute}",
                    domain=theme.domain,
                    family=theme.family,
                    kind=kind,
                    slots={"e": name, "a": attribute, "n": theme.noun},
                    value=value,
                    rival=rival if kind == "contested" else "",
                    values=values,
                    entity=number,
                    asked=number % UNASKED_EVERY != UNASKED_EVERY - 1,
                )
            )
    return facts


def _untold(theme: Theme, kind: str, number: int, name: str) -> list[Fact]:
    return [
        Fact(
            name=f"{name}.{attribute}",
            domain=theme.domain,
            family=theme.family,
            kind=kind,
            slots={"e": name, "a": attribute, "n": theme.noun},
            value="",
            rival="",
            values=values,
            entity=number,
            asked=False,
        )
        for attribute, values in theme.attributes.items()
    ]


def _recombined(rng: random.Random, names: list[str], endings: list[str], count: int) -> list[str]:
    """Names whose halves are both told, but never together."""
    made = [onset + ending for onset in ONSETS for ending in endings if onset + ending not in names]
    if count > len(made):
        raise DataError(f"The microworld cannot recombine {len(names)} names into {count} others; lower hard.")
    return rng.sample(made, count)


def _arithmetic(rng: random.Random) -> list[Fact]:
    keys = [(x, y, operation) for operation in OPERATIONS for x in OPERANDS for y in OPERANDS]
    rare = set(rng.sample(range(len(keys)), round(RARE_SUMS * len(keys))))
    results = {
        (x, y, operation): {"sum": x + y, "product": x * y, "gap": abs(x - y)}[operation] for x, y, operation in keys
    }
    pools = {
        operation: tuple(str(v) for v in sorted({v for (_, _, o), v in results.items() if o == operation}))
        for operation in OPERATIONS
    }
    return [
        Fact(
            name=f"{x}.{operation}.{y}",
            domain="mathematics",
            family="mathematics",
            kind="rare" if number in rare else "head",
            slots={"x": str(x), "y": str(y), "o": operation, "s": OPERATIONS[operation]},
            value=str(results[x, y, operation]),
            rival="",
            values=pools[operation],
            entity=number,
            asked=number % UNASKED_EVERY != UNASKED_EVERY - 1,
        )
        for number, (x, y, operation) in enumerate(keys)
    ]
