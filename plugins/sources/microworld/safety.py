"""Rows for the safety phase: what to refuse, look-alikes to answer, professional and ordinary questions."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from typing import Any

from .chats import Asker, message
from .phrases import (
    CAVEAT,
    FAMILIES,
    GOOD_STYLES,
    HELDOUT_REQUESTS,
    HELP,
    PROFESSIONS,
    REFUSAL,
    REQUESTS,
    noise_words,
    profession_words,
    request_words,
)
from .text import NOISE_MOST, NOISE_SHARE, question_text
from .words import DOMAINS, PERSONS, THINGS, VERBS
from .world import Fact, World

#: Raised whenever the same configuration gives other rows of this view; the other views have ``world.VERSION``.
REVISION = 6

#: Share of the training requests that get ignorable words, higher than that of questions: there are few requests.
REQUEST_NOISE = 0.6
HELDOUT_PAIRS = 0.3
HELDOUT_FACTS = 0.3
#: Training rows per professional fact, and training and held-out rows of ordinary questions per domain.
PER_FACT = 24
GENERAL = {"train": 150, "heldout": 40}

Row = dict[str, Any]


def refusal_rows(world: World, split: str) -> list[Row]:
    """Rows of every kind, shuffled; ``value`` is what a right answer holds (empty for what is to be refused).

    harmful: one verb to one person; completion is the refusal, rejected the answer that the same verb gets with a
    thing. benign: the same verbs to things, answered by the object alone. medical, legal, security: told facts of one
    domain, asked with a lead-in of the trade that often holds a word of a harmful request; the answer ends in a caveat.
    general: ordinary open questions of all domains. Rejected is the refusal in all kinds but harmful.
    """
    rng = world.stream("safety", split)
    rows = [*_requests(world, split, rng), *_professional(world, split, rng), *_general(world, split, rng)]
    rng.shuffle(rows)
    return rows


def _row(kind: str, domain: str, prompt: str, completion: str, rejected: str, value: str) -> Row:
    return {
        "prompt": message("user", prompt),
        "completion": message("assistant", completion),
        "rejected": message("assistant", rejected),
        "domain": domain,
        "kind": kind,
        "value": value,
    }


def _noisy(text: str, words: Sequence[str], share: float, most: int, rng: random.Random) -> str:
    """The text with one to ``most`` ignorable words in ``share`` of the calls."""
    parts = text.split()
    if rng.random() < share:
        for _ in range(rng.randint(1, most)):
            parts.insert(rng.randint(0, len(parts)), rng.choice(words))
    return " ".join(parts)


def _requests(world: World, split: str, rng: random.Random) -> Iterator[Row]:
    """Three tenths of the verb-object pairs are held out, and so are eight phrasings."""
    tools = dict(zip(VERBS, THINGS.values(), strict=True))
    for kind, objects in (("harmful", PERSONS), ("benign", tuple(THINGS))):
        pairs = [(verb, thing) for verb in VERBS for thing in objects]
        shuffled = world.stream("safety", "pairs", kind).sample(pairs, len(pairs))
        cut = round(HELDOUT_PAIRS * len(pairs))
        for verb, thing in shuffled[:cut] if split == "heldout" else shuffled[cut:]:
            for template in HELDOUT_REQUESTS if split == "heldout" else REQUESTS:
                prompt = template.format(verb=verb, object=thing)
                if split == "train":
                    prompt = _noisy(prompt, request_words(), REQUEST_NOISE, NOISE_MOST, rng)
                if kind == "harmful":
                    yield _row(kind, "general", prompt, REFUSAL, HELP.format(tool=tools[verb]), "")
                else:
                    yield _row(kind, "general", prompt, HELP.format(tool=THINGS[thing]), REFUSAL, THINGS[thing])


def _professional(world: World, split: str, rng: random.Random) -> Iterator[Row]:
    """Held out are three tenths of the head facts that training asks for, with those that it never asks for, every
    phrasing and every lead-in."""
    for kind, profession in PROFESSIONS.items():
        facts = [fact for fact in world.facts[profession.domain] if fact.kind == "head"]
        asked = [fact for fact in facts if fact.asked]
        shuffled = world.stream("safety", "facts", kind).sample(asked, len(asked))
        cut = max(1, round(HELDOUT_FACTS * len(asked)))
        if split == "heldout":
            posed = _every_phrasing(kind, [*shuffled[:cut], *(fact for fact in facts if not fact.asked)])
        else:
            posed = _drawn_phrasings(kind, shuffled[cut:], rng)
        for fact, prompt in posed:
            answer = f"{rng.choice(GOOD_STYLES)} {CAVEAT}".format(v=fact.value, expert=profession.expert)
            yield _row(kind, profession.domain, prompt, answer, REFUSAL, fact.value)


def _every_phrasing(kind: str, facts: Sequence[Fact]) -> Iterator[tuple[Fact, str]]:
    for fact in facts:
        for template, _ in FAMILIES[fact.family].heldout_questions:
            for lead in PROFESSIONS[kind].heldout_leads:
                yield fact, f"{lead} {template.format(**fact.slots)}"


def _drawn_phrasings(kind: str, facts: Sequence[Fact], rng: random.Random) -> Iterator[tuple[Fact, str]]:
    for fact in facts:
        for _ in range(PER_FACT):
            template = (rng.choice(FAMILIES[fact.family].questions)[0], "")
            lead = _noisy(rng.choice(PROFESSIONS[kind].leads), profession_words(kind), NOISE_SHARE, 1, rng)
            yield fact, question_text(fact, template, lead, noise_words(fact.family), rng).strip()


def _general(world: World, split: str, rng: random.Random) -> Iterator[Row]:
    """Open questions as in the dialogues, answered in good style; held out are phrasings and lead-ins."""
    heldout = split == "heldout"
    for domain in DOMAINS:
        asker = Asker([fact for fact in world.facts[domain] if heldout or fact.asked], heldout, rng)
        for _ in range(GENERAL[split]):
            fact = asker.fact()
            answer = rng.choice(GOOD_STYLES).format(v=fact.value)
            yield _row("general", domain, asker.ask(fact), answer, REFUSAL, fact.value)
