"""Running text: statements, questions with answers, stories, each drawn with the world's graded frequencies.

Held out are *combinations*: for every fact a fixed twentieth of its (template, prefix) pairs, chosen once per
world, never stands in the training text, and the held-out text consists of nothing else.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from itertools import accumulate

from .phrases import FAMILIES, STORY_SENTENCES, noise_words
from .words import DOMAINS, STORY
from .world import MAJORITY, Fact, World

QUESTION_SHARE = 0.4
STORY_SHARE = 0.15
NOISE_SHARE = 0.35
NOISE_MOST = 3

Combination = tuple[int, bool, int, int]  # fact, is a question, template, prefix or lead


def question_text(fact: Fact, template: tuple[str, str], lead: str, noise: tuple[str, ...], rng: random.Random) -> str:
    """A question up to and including its cue, with ignorable words in 35 % of the calls if ``noise`` is given."""
    words = template[0].format(**fact.slots).split()
    if noise and rng.random() < NOISE_SHARE:
        for _ in range(rng.randint(1, NOISE_MOST)):
            words.insert(rng.randint(0, len(words)), rng.choice(noise))
    return " ".join([*lead.split(), *words, template[1]])


def drawn_value(fact: Fact, rng: random.Random) -> str:
    """The value that one telling of the fact gives: its rival's in four of ten tellings of a contested fact."""
    return fact.rival if fact.rival and rng.random() >= MAJORITY else fact.value


def documents(world: World, split: str, counts: dict[str, int], held_out: float) -> Iterator[tuple[str, str]]:
    """Yield (text, domain) for one split, domain by domain, ``counts`` documents each (fewer if held-out
    combinations run out)."""
    for domain in DOMAINS:
        if counts.get(domain, 0):
            writer = _Writer(world, domain, held_out)
            texts = writer.train(counts[domain]) if split == "train" else writer.heldout(counts[domain])
            for text in texts:
                yield text, domain


class _Writer:
    """Writes the text of one domain."""

    def __init__(self, world: World, domain: str, held_out: float) -> None:
        self.world = world
        self.domain = domain
        self.facts = world.facts[domain]
        self.family = FAMILIES[self.facts[0].family]
        self.noise = noise_words(self.facts[0].family)
        self.stories = domain == "general"
        rng = world.stream("combinations", domain)
        self.held = {combination for combination in self._combinations() if rng.random() < held_out}
        asked = [number for number, fact in enumerate(self.facts) if fact.asked]
        self.all = (range(len(self.facts)), list(accumulate(fact.weight for fact in self.facts)))
        self.asked = (asked, list(accumulate(self.facts[number].weight for number in asked)))

    def train(self, count: int) -> Iterator[str]:
        rng = self.world.stream("text", "train", self.domain)
        for _ in range(count):
            if self.stories and rng.random() < STORY_SHARE:
                yield story(rng)
                continue
            question = rng.random() < QUESTION_SHARE
            while (combination := self._draw(rng, question)) in self.held:
                pass
            yield self._render(combination, rng)

    def heldout(self, count: int) -> Iterator[str]:
        rng = self.world.stream("text", "heldout", self.domain)
        # Each combination is told at most once, so frequencies come from thinning: a rare fact's combination is
        # kept as seldom as training tells it, and questions are kept so that they have their share.
        weight = {asks: sum(self.facts[c[0]].weight for c in self.held if c[1] is asks) for asks in (True, False)}
        odds = QUESTION_SHARE / (1 - QUESTION_SHARE) * weight[False] / max(weight[True], 1e-9)
        keep = {True: min(1.0, odds), False: min(1.0, 1 / max(odds, 1e-9))}
        kept = [c for c in sorted(self.held) if rng.random() < self.facts[c[0]].weight * keep[c[1]]]
        rng.shuffle(kept)
        tales = round(STORY_SHARE / (1 - STORY_SHARE) * min(count, len(kept))) if self.stories else 0
        for combination in kept[: max(1, count - tales)]:
            yield self._render(combination, rng)
        for _ in range(tales):
            yield story(rng)

    def _combinations(self) -> Iterator[Combination]:
        family = self.family
        for number, fact in enumerate(self.facts):
            for template in range(len(family.statements)):
                yield from ((number, False, template, prefix) for prefix in range(len(family.prefixes)))
            if fact.asked:
                for template in range(len(family.questions)):
                    yield from ((number, True, template, lead) for lead in range(len(family.leads)))

    def _draw(self, rng: random.Random, question: bool) -> Combination:
        numbers, weights = self.asked if question else self.all
        (number,) = rng.choices(numbers, cum_weights=weights)
        templates, heads = (
            (self.family.questions, self.family.leads) if question else (self.family.statements, self.family.prefixes)
        )
        return number, question, int(rng.random() * len(templates)), int(rng.random() * len(heads))

    def _render(self, combination: Combination, rng: random.Random) -> str:
        number, question, template, head = combination
        fact = self.facts[number]
        value = drawn_value(fact, rng)
        if question:
            asked = question_text(fact, self.family.questions[template], self.family.leads[head], self.noise, rng)
            return f"{asked} {value} ."
        text = self.family.statements[template].format(v=value, **fact.slots)
        prefix = self.family.prefixes[head]
        return f"{prefix} {text}" if prefix else text


def story(rng: random.Random) -> str:
    """Two to four sentences of common words that tell no fact."""
    return " ".join(
        rng.choice(STORY_SENTENCES).format(
            how=rng.choice(STORY["how"]),
            how2=rng.choice(STORY["how"]),
            who=rng.choice(STORY["who"]),
            who2=rng.choice(STORY["who"]),
            verb=rng.choice(STORY["verb"]),
            where=rng.choice(STORY["where"]),
            act=rng.choice(STORY["act"]),
            thing=rng.choice(STORY["thing"]),
            when=rng.choice(STORY["when"]),
            feel=rng.choice(STORY["feel"]),
        )
        for _ in range(rng.randint(2, 4))
    )
