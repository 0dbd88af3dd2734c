"""Multiple-choice questions on told facts, and open questions on told and untold ones."""

from __future__ import annotations

import random
from typing import Any

from .phrases import FAMILIES
from .text import question_text
from .words import DOMAINS
from .world import Fact, World

CHOICES = 4


def options(fact: Fact, rng: random.Random) -> tuple[list[str], int]:
    """The true value among three others of the same attribute (a contested fact's rival is always one of them),
    in random order, and the true one's place."""
    others = [value for value in fact.values if value not in (fact.value, fact.rival)]
    wrong = rng.sample(others, CHOICES - 1 - bool(fact.rival)) + ([fact.rival] if fact.rival else [])
    shown = [fact.value, *wrong]
    rng.shuffle(shown)
    return shown, shown.index(fact.value)


def choice_rows(world: World, split: str) -> list[dict[str, Any]]:
    """Choice questions in random order: ``heldout`` asks every fact in the three held-out phrasings, ``train``
    asks the facts that training questions ask in three of its own phrasings (``seen`` tells which)."""
    rng = world.stream("choice", split)
    rows = []
    for domain in DOMAINS:
        family = FAMILIES[world.facts[domain][0].family]
        for fact in world.facts[domain]:
            if split == "train":
                if not fact.asked:
                    continue
                phrasings, leads = rng.sample(family.questions, 3), family.leads
            else:
                phrasings, leads = list(family.heldout_questions), family.heldout_leads
            for template in phrasings:
                shown, place = options(fact, rng)
                rows.append(
                    {
                        "question": question_text(fact, template, rng.choice(leads), (), rng),
                        "choices": shown,
                        "answer": place,
                        "domain": domain,
                        "kind": fact.kind,
                        "seen": split == "train",
                        "asked": fact.asked,
                        "fact": fact.name,
                    }
                )
    rng.shuffle(rows)
    return rows


def unknown_rows(world: World, split: str) -> list[dict[str, Any]]:
    """Open questions on told facts (answerable) and on names that were never told; the two splits share no
    entity (``group``). ``heldout`` uses the held-out phrasings."""
    rng = world.stream("unknown", split)
    rows = []
    for domain in DOMAINS:
        for fact in (*world.facts[domain], *world.untold.get(domain, ())):
            if (fact.entity % 2 == 0) != (split == "train"):
                continue
            family = FAMILIES[fact.family]
            phrasings = family.questions[:3] if split == "train" else family.heldout_questions
            leads = family.leads if split == "train" else family.heldout_leads
            for template in phrasings:
                rows.append(
                    {
                        "question": question_text(fact, template, rng.choice(leads), (), rng),
                        "answer": fact.value,
                        "domain": domain,
                        "kind": fact.kind,
                        "answerable": bool(fact.value),
                        "fact": fact.name,
                        "group": fact.slots.get("e", fact.name),
                    }
                )
    rng.shuffle(rows)
    return rows
