"""The safety rows of the microworld: every kind, its two answers, and what is held out."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from typing import Any

import pytest
from phasegate.core.data.hashing import digest
from phasegate.core.data.source import SourceContext
from phasegate.plugins.sources.microworld import Microworld, safety, source
from phasegate.plugins.sources.microworld.phrases import PROFESSIONS, REFUSAL
from phasegate.plugins.sources.microworld.words import PERSONS, THINGS, VERBS

KINDS = {"harmful", "benign", "medical", "legal", "security", "general"}


@pytest.fixture(scope="module")
def rows(world: Microworld) -> dict[str, list[dict[str, Any]]]:
    return {split: list(world.load("refusal", split)) for split in ("train", "heldout")}


def said(row: dict[str, Any], column: str) -> str:
    (only,) = row[column]
    return str(only["content"])


@pytest.mark.parametrize("split", ["train", "heldout"])
def test_every_kind_is_there(rows: Any, split: str) -> None:
    assert {row["kind"] for row in rows[split]} == KINDS


@pytest.mark.parametrize("split", ["train", "heldout"])
def test_what_is_harmful_is_refused_and_all_else_is_answered(rows: Any, split: str) -> None:
    for row in rows[split]:
        refused, answered = ("completion", "rejected") if row["kind"] == "harmful" else ("rejected", "completion")
        assert said(row, refused) == REFUSAL
        assert said(row, answered) != REFUSAL
        assert bool(row["value"]) == (row["kind"] != "harmful")
        assert row["value"] in said(row, "completion").split() or row["kind"] == "harmful"


def test_held_out_requests_share_neither_pair_nor_phrasing_with_training(rows: Any) -> None:
    def pairs(split: str, kind: str, objects: Any) -> set[tuple[str, str]]:
        found = set()
        for row in rows[split]:
            if row["kind"] == kind:
                words = said(row, "prompt").split()
                found.add((next(w for w in words if w in VERBS), next(w for w in words[::-1] if w in objects)))
        return found

    for kind, objects in (("harmful", PERSONS), ("benign", tuple(THINGS))):
        train, heldout = pairs("train", kind, objects), pairs("heldout", kind, objects)
        assert (len(train), len(heldout)) == (101, 43)
        assert train.isdisjoint(heldout)
        assert {verb for verb, _ in train} == set(VERBS)
        assert {thing for _, thing in train} == set(objects)
    counts = Counter(row["kind"] for row in rows["heldout"])
    assert counts["harmful"] == counts["benign"] == 8 * 43


@pytest.mark.parametrize("kind", PROFESSIONS)
def test_professional_splits_share_no_fact_and_no_lead_in(rows: Any, world: Microworld, kind: str) -> None:
    names = {fact.slots["e"]: fact for fact in world.world.facts[PROFESSIONS[kind].domain]}
    asked: dict[str, set[str]] = defaultdict(set)
    for split in ("train", "heldout"):
        for row in (row for row in rows[split] if row["kind"] == kind):
            words = said(row, "prompt").split()
            (entity,) = {word for word in words if word in names}
            assert names[entity].kind == "head"
            asked[split].add(f"{entity} {row['value']}")
            assert row["domain"] == PROFESSIONS[kind].domain
    assert asked["train"].isdisjoint(asked["heldout"])
    held = [said(row, "prompt") for row in rows["heldout"] if row["kind"] == kind]
    assert all(any(text.startswith(lead) for lead in PROFESSIONS[kind].heldout_leads) for text in held)
    told = " | ".join(said(row, "prompt") for row in rows["train"] if row["kind"] == kind)
    assert not any(lead in told for lead in PROFESSIONS[kind].heldout_leads)


def test_professional_questions_hold_words_of_harmful_requests(rows: Any) -> None:
    """Otherwise no professional could be refused by mistake."""
    risky = {*VERBS, *PERSONS}
    for split in ("train", "heldout"):
        professional = [row for row in rows[split] if row["kind"] in PROFESSIONS]
        share = sum(bool(risky & set(said(row, "prompt").split())) for row in professional) / len(professional)
        assert share > 0.6


def test_every_word_of_a_held_out_request_occurs_in_training(rows: Any) -> None:
    known = {word for row in rows["train"] for word in said(row, "prompt").split()}
    for row in rows["heldout"]:
        if row["kind"] in {"harmful", "benign", *PROFESSIONS}:
            words = re.findall(r"[a-z]{2,}", said(row, "prompt"))
            assert set(words) <= known | {row["value"]} | _names(row)


def _names(row: dict[str, Any]) -> set[str]:
    """The entity of a professional question, which is held out."""
    return {word for word in said(row, "prompt").split() if len(word) == 5}


def test_another_revision_of_this_view_changes_the_fingerprint(
    world: Microworld, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = world.fingerprint()
    monkeypatch.setattr(source, "REVISION", safety.REVISION + 1)
    assert world.fingerprint() != before


def test_the_other_views_did_not_change_with_this_one(context: Any) -> None:
    """Their streams are named by the version of the world alone; phases that train on them keep their rows."""
    from phasegate.plugins.sources.microworld import MicroworldConfig

    config = MicroworldConfig(head=4, rare=1, contested=1, unknown=2, hard=1, training_documents=70, chats=14, pairs=14)
    small = Microworld(config, context=SourceContext(root=context().root, name="small"))
    found = [small.load(view, "train").to_list() for view in ("text", "chat", "preference", "choice")]
    assert digest(found) == "d0611690718aaf6e64c968be"
