"""Dialogues: instructions with verifiable formats, open questions in good and bad style, preference pairs."""

from __future__ import annotations

import json
import random
from itertools import accumulate
from typing import Any

from .phrases import (
    BAD_STYLES,
    FAMILIES,
    GOOD_STYLES,
    HELDOUT_WRAPPERS,
    KEYWORDS,
    RENDERED,
    WRAPPERS,
    instruction_words,
    noise_words,
)
from .text import NOISE_SHARE, question_text
from .words import DOMAINS
from .world import Fact, World

OPEN_SHARE = 0.25
HELDOUT_FACTS = 0.2


def message(role: str, content: str) -> list[dict[str, str]]:
    """One message as a list, the form that trl's prompts and completions have."""
    return [{"role": role, "content": content}]


def rendered(name: str, value: str) -> str:
    """A value in one of the eight formats."""
    return RENDERED[name].format(v=value, u=value.upper())


class Asker:
    """Draws facts with graded frequency and asks for them, without the cue that only running text needs."""

    def __init__(self, facts: list[Fact], heldout: bool, rng: random.Random) -> None:
        self.facts, self.heldout, self.rng = facts, heldout, rng
        self.weights = list(accumulate(fact.weight for fact in facts))
        self.instructions = instruction_words()

    def fact(self) -> Fact:
        return self.rng.choices(self.facts, cum_weights=self.weights)[0]

    def ask(self, fact: Fact) -> str:
        family = FAMILIES[fact.family]
        templates = family.heldout_questions if self.heldout else family.questions
        leads = family.heldout_leads if self.heldout else family.leads
        noise = () if self.heldout else noise_words(fact.family)
        text = question_text(fact, (self.rng.choice(templates)[0], ""), self.rng.choice(leads), noise, self.rng)
        return text.strip()

    def instruct(self, name: str, question: str) -> str:
        wrapper = self.rng.choice(HELDOUT_WRAPPERS if self.heldout else WRAPPERS)
        words = wrapper.split()
        if not self.heldout and self.rng.random() < NOISE_SHARE:
            words.insert(self.rng.randint(0, len(words)), self.rng.choice(self.instructions))
        return " ".join(words).format(k=self.rng.choice(KEYWORDS[name]), q=question)


def chat_rows(world: World, split: str, count: int) -> list[dict[str, Any]]:
    """Dialogues of one question and one answer, domains in turn. Three quarters ask for a format (``check``), a
    quarter is open and answered half in good style, half in bad (``replay`` is false for those).
    ``heldout`` asks in held-out phrasings *and* held-out wrappers, formats only."""
    rng = world.stream("chat", split)
    heldout = split == "heldout"
    askers = {domain: Asker([f for f in world.facts[domain] if heldout or f.asked], heldout, rng) for domain in DOMAINS}
    rows = []
    for number in range(count):
        asker = askers[DOMAINS[number % len(DOMAINS)]]
        fact = asker.fact()
        question = asker.ask(fact)
        good = True
        if not heldout and rng.random() < OPEN_SHARE:
            good = rng.random() < 0.5
            kind, check = "open", ""
            answer = rng.choice(GOOD_STYLES if good else BAD_STYLES).format(v=fact.value)
        else:
            names = [name for name in RENDERED if name != "upper" or not fact.value.isdigit()]
            kind = rng.choice(names)
            check, answer = json.dumps({"format": kind}), rendered(kind, fact.value)
            question = asker.instruct(kind, question)
        rows.append(
            {
                "prompt": message("user", question),
                "completion": message("assistant", answer),
                "domain": fact.domain,
                "kind": kind,
                "check": check,
                "value": fact.value,
                "replay": good,
            }
        )
    return rows


def preference_rows(world: World, split: str, count: int) -> list[dict[str, Any]]:
    """Pairs on open questions: chosen is right in good style; rejected has a wrong value (kind ``value``) or a bad
    style (kind ``style``), in turn. Four fifths of the facts are for training, the rest held out; contested
    facts have no pair."""
    rng = world.stream("preference", split)
    askers = {}
    for domain in DOMAINS:
        facts = [fact for fact in world.facts[domain] if fact.asked and fact.kind != "contested"]
        shuffled = world.stream("preference", "facts", domain).sample(facts, len(facts))
        cut = max(1, round(HELDOUT_FACTS * len(shuffled)))
        askers[domain] = Asker(shuffled[:cut] if split == "heldout" else shuffled[cut:], False, rng)
    rows = []
    for number in range(count):
        asker = askers[DOMAINS[number % len(DOMAINS)]]
        fact = asker.fact()
        wrong = [value for value in fact.values if value != fact.value]
        kind = ("value", "style")[(number // len(DOMAINS) + number % len(DOMAINS)) % 2]
        good = rng.choice(GOOD_STYLES)
        bad = good.format(v=rng.choice(wrong)) if kind == "value" else rng.choice(BAD_STYLES).format(v=fact.value)
        truth = {
            "value": fact.value,
            "good": [style.format(v=fact.value) for style in GOOD_STYLES],
            "bad": [style.format(v=fact.value) for style in BAD_STYLES],
            "others": wrong,
        }
        rows.append(
            {
                "prompt": message("user", asker.ask(fact)),
                "chosen": message("assistant", good.format(v=fact.value)),
                "rejected": message("assistant", bad),
                "domain": fact.domain,
                "kind": kind,
                "truth": json.dumps(truth),
                "fact": fact.name,
            }
        )
    return rows
