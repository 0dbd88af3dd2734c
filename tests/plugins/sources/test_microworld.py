"""The microworld: what is told, how often, and what is kept apart."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections import Counter, defaultdict
from pathlib import Path

import pytest
from phasegate.core.data.contamination import find_contamination
from phasegate.core.data.source import VIEW_COLUMNS, SourceContext
from phasegate.evals.formats import check_format, judge_answer
from phasegate.plugins.sources.microworld import Microworld, MicroworldConfig
from phasegate.plugins.sources.microworld.phrases import FAMILIES, HELDOUT_WRAPPERS, KEYWORDS, WRAPPERS
from phasegate.plugins.sources.microworld.words import DOMAINS, OPERATIONS, THEMES
from phasegate.plugins.sources.microworld.world import MAJORITY, WEIGHTS
from phasegate.registry.errors import DataError


def other(**config: int) -> Microworld:
    return Microworld(MicroworldConfig(**config), context=SourceContext(root=Path(), name="world"))


def names(world: Microworld, *kinds: str) -> set[str]:
    groups = {**world.world.facts, **{f"untold {k}": v for k, v in world.world.untold.items()}}
    return {f.slots["e"] for facts in groups.values() for f in facts if "e" in f.slots and f.kind in kinds}


# ---- the facts


def test_the_world_has_the_measured_number_of_facts(world: Microworld) -> None:
    facts = world.world.facts
    assert {domain: len(facts[domain]) for domain in DOMAINS if domain != "mathematics"} == dict.fromkeys(
        [theme.domain for theme in THEMES], 38 * 3
    )
    assert len(facts["mathematics"]) == 147
    assert sum(map(len, facts.values())) == 831
    kinds = Counter(fact.kind for fact in facts["general"])
    assert kinds == {"head": 26 * 3, "rare": 8 * 3, "contested": 4 * 3}
    assert Counter(fact.kind for fact in facts["mathematics"])["rare"] == 22  # 15 % of 147
    assert sum(len(facts) for facts in world.world.untold.values()) == 6 * (40 + 6) * 3


def test_arithmetic_is_right(world: Microworld) -> None:
    rules = {"sum": lambda x, y: x + y, "product": lambda x, y: x * y, "gap": lambda x, y: abs(x - y)}
    assert set(rules) == set(OPERATIONS)
    for fact in world.world.facts["mathematics"]:
        x, y = int(fact.slots["x"]), int(fact.slots["y"])
        assert fact.value == str(rules[fact.slots["o"]](x, y))


def test_second_syllables_are_unique_and_first_ones_shared(world: Microworld) -> None:
    told = names(world, "head", "rare", "contested", "unknown")
    assert len(told) == 6 * 78
    assert len({name[2:] for name in told}) == len(told)
    assert len({name[:2] for name in told}) == 11


def test_values_belong_to_one_attribute_and_are_spread_evenly(world: Microworld) -> None:
    pools = [values for theme in THEMES for values in theme.attributes.values()]
    assert len({value for pool in pools for value in pool}) == sum(map(len, pools))
    assert all(8 <= len(pool) <= 13 for pool in pools)
    used = Counter(f.value for f in world.world.facts["science"] if f.slots["a"] == "colour")
    assert max(used.values()) - min(used.values()) <= 1


def test_hard_names_recombine_halves_that_are_both_told(world: Microworld) -> None:
    told, hard = names(world, "head", "rare", "contested"), names(world, "hard")
    assert len(hard) == 36
    assert not hard & told
    assert all(any(name[2:] == known[2:] for known in told) for name in hard)


def test_another_seed_is_another_world(world: Microworld) -> None:
    fresh = other(seed=1)
    assert len(names(fresh, "head") & names(world, "head")) < 10
    assert fresh.fingerprint() != world.fingerprint()


def test_too_many_entities_are_refused() -> None:
    with pytest.raises(DataError, match="unique names"):
        other(unknown=500).load("choice", "heldout")


# ---- text


def test_text_is_lower_case_words_of_all_domains(world: Microworld) -> None:
    rows = world.load("text", "train")
    assert set(rows["domain"]) == set(DOMAINS)
    assert all(text == text.lower() and "  " not in text and text == text.strip() for text in rows["text"])


def test_facts_are_told_with_graded_frequency(world: Microworld) -> None:
    told: Counter[str] = Counter()
    kind_of = {f.slots["e"]: f.kind for f in world.world.facts["science"]}
    for row in world.load("text", "train"):
        if row["domain"] == "science":
            told.update(word for word in row["text"].split() if word in kind_of)
    mean = {
        kind: sum(told[name] for name, k in kind_of.items() if k == kind) / sum(k == kind for k in kind_of.values())
        for kind in WEIGHTS
    }
    assert mean["rare"] / mean["head"] == pytest.approx(0.06, abs=0.03)
    assert mean["contested"] / mean["head"] == pytest.approx(1.0, abs=0.15)


def test_contested_facts_are_told_sixty_to_forty(world: Microworld) -> None:
    contested = {
        f.slots["e"]: f for f in world.world.facts["books"] if f.kind == "contested" and f.slots["a"] == "genre"
    }
    true = total = 0
    for text in world.load("text", "train")["text"]:
        words = text.split()
        for name in set(words) & set(contested):
            fact = contested[name]
            if "genre" in words:
                assert (fact.value in words) != (fact.rival in words)
                true, total = true + (fact.value in words), total + 1
    assert total > 60
    assert true / total == pytest.approx(MAJORITY, abs=0.15)


def test_names_that_are_never_told_stand_in_no_text_and_no_dialogue(world: Microworld) -> None:
    untold = names(world, "unknown", "hard")
    for split in ("train", "heldout"):
        for text in world.load("text", split)["text"]:
            assert not untold & set(text.split())
        for prompt in world.load("chat", split)["prompt"]:
            assert not untold & set(prompt[0]["content"].split())


def test_every_fifth_entity_is_told_but_never_asked_about(world: Microworld) -> None:
    facts = world.world.facts["general"]
    withheld = {f.slots["e"] for f in facts if not f.asked}
    assert len(withheld) == 38 // 5
    cues = {cue for _, cue in FAMILIES["english"].questions}
    seen = asked = 0
    for row in world.load("text", "train"):
        words = set(row["text"].split())
        if row["domain"] == "general" and withheld & words:
            seen += 1
            asked += any(row["text"].endswith(f"{cue} {row['text'].split()[-2]} .") for cue in cues)
    assert seen > 100
    assert asked == 0


def test_held_out_text_is_never_training_text(world: Microworld) -> None:
    train, heldout = world.load("text", "train")["text"][:], world.load("text", "heldout")["text"][:]
    assert set(train).isdisjoint(heldout)
    found = find_contamination(train, heldout)
    assert found.dropped / len(heldout) < 0.05  # those that differ in punctuation alone, which the corpus drops
    assert len(heldout) > 500


def test_held_out_text_has_all_domains_and_the_same_grades(world: Microworld) -> None:
    rows = world.load("text", "heldout")
    assert set(rows["domain"]) == set(DOMAINS)
    kind_of = {f.slots["e"]: f.kind for facts in world.world.facts.values() for f in facts if "e" in f.slots}
    kinds = Counter(kind_of[word] for text in rows["text"] for word in text.split() if word in kind_of)
    assert kinds["rare"] / kinds["head"] < 0.06


def test_every_word_of_a_held_out_phrasing_is_known_from_training(world: Microworld) -> None:
    known: dict[str, set[str]] = defaultdict(set)
    for row in world.load("text", "train"):
        known[row["domain"]].update(row["text"].split())
    for row in world.load("choice", "heldout"):
        assert set(row["question"].split()) <= known[row["domain"]], row
    prompts = {word for row in world.load("chat", "train") for word in row["prompt"][0]["content"].split()}
    for row in world.load("chat", "heldout"):
        assert set(row["prompt"][0]["content"].split()) <= prompts | known[row["domain"]]


def test_phrasings_and_wrappers_come_in_the_measured_numbers() -> None:
    for name, family in FAMILIES.items():
        assert len(family.questions) == (7 if name == "mathematics" else 8)
        assert len(family.heldout_questions) == 3
        assert set(family.questions).isdisjoint(family.heldout_questions)
        assert 3 <= len(family.leads) <= 7
    assert (len(WRAPPERS), len(HELDOUT_WRAPPERS), len(KEYWORDS)) == (18, 3, 8)
    assert set(WRAPPERS).isdisjoint(HELDOUT_WRAPPERS)


# ---- questions


def test_choice_questions_ask_every_fact_in_held_out_phrasings(world: Microworld) -> None:
    rows = world.load("choice", "heldout")
    assert len(rows) == 831 * 3
    assert not any(rows["seen"])
    assert set(rows["kind"]) == {"head", "rare", "contested"}
    value = {f.name: f for facts in world.world.facts.values() for f in facts}
    for row in rows:
        fact = value[row["fact"]]
        assert row["choices"][row["answer"]] == fact.value
        assert len(set(row["choices"])) == 4
        assert set(row["choices"]) <= set(fact.values)
        assert not fact.rival or fact.rival in row["choices"]
        assert not row["question"].endswith(" ")


def test_right_answers_stand_in_every_place_equally_often(world: Microworld) -> None:
    places = Counter(world.load("choice", "heldout")["answer"])
    assert all(count == pytest.approx(831 * 3 / 4, rel=0.12) for count in places.values())


def test_seen_questions_are_phrased_as_in_training(world: Microworld) -> None:
    train, heldout = (set(world.load("choice", split)["question"]) for split in ("train", "heldout"))
    assert train.isdisjoint(heldout)
    rows = world.load("choice", "train")
    assert all(rows["seen"]) and all(rows["asked"])


def test_unknown_questions_share_no_entity_between_the_splits(world: Microworld) -> None:
    train, heldout = (world.load("unknown", split) for split in ("train", "heldout"))
    assert set(train["fact"]).isdisjoint(heldout["fact"])
    kinds = Counter(heldout["kind"])
    assert set(kinds) == {"head", "rare", "contested", "unknown", "hard"}
    assert all((row["answer"] == "") == (row["kind"] in ("unknown", "hard")) for row in heldout)


# ---- dialogues


def test_every_instructed_answer_has_the_format_it_was_asked_for(world: Microworld) -> None:
    for split in ("train", "heldout"):
        for row in world.load("chat", split):
            if row["check"]:
                assert check_format(row["check"], row["completion"][0]["content"]), row
            else:
                assert row["kind"] == "open"


def test_formats_are_eight_and_open_answers_half_good(world: Microworld) -> None:
    rows = world.load("chat", "train")
    kinds = Counter(rows["kind"])
    assert set(kinds) == {*KEYWORDS, "open"}
    assert kinds["open"] / len(rows) == pytest.approx(0.25, abs=0.03)
    good = [row["replay"] for row in rows if row["kind"] == "open"]
    assert sum(good) / len(good) == pytest.approx(0.5, abs=0.06)
    assert all(row["replay"] for row in rows if row["kind"] != "open")


def test_held_out_instructions_use_wrappers_that_training_never_uses(world: Microworld) -> None:
    def uses(wrapper: str, text: str) -> bool:
        middle = re.escape(wrapper).replace(re.escape("{k}"), r"\w+").replace(re.escape("{q}"), ".+")
        return re.fullmatch(middle, text) is not None

    for row in world.load("chat", "train"):
        assert not any(uses(wrapper, row["prompt"][0]["content"]) for wrapper in HELDOUT_WRAPPERS)
    for row in world.load("chat", "heldout"):
        assert any(uses(wrapper, row["prompt"][0]["content"]) for wrapper in HELDOUT_WRAPPERS)


def test_chosen_answers_score_one_and_rejected_ones_less(world: Microworld) -> None:
    rows = world.load("preference", "heldout")
    for row in rows:
        assert judge_answer(row["truth"], row["chosen"][0]["content"]) == 1.0
        expected = {"value": 0.0, "style": 0.5}[row["kind"]]
        assert judge_answer(row["truth"], row["rejected"][0]["content"]) == expected
    kinds = Counter(rows["kind"])
    assert kinds["value"] == pytest.approx(len(rows) / 2, abs=1)


def test_both_kinds_of_pairs_come_from_every_domain(world: Microworld) -> None:
    rows = world.load("preference", "train")
    assert len(set(zip(rows["domain"], rows["kind"], strict=True))) == 14


def test_preference_splits_share_no_fact(world: Microworld) -> None:
    train, heldout = (set(world.load("preference", split)["fact"]) for split in ("train", "heldout"))
    assert train.isdisjoint(heldout)
    assert heldout


# ---- later phases


def test_needles_stand_once_at_their_depth_and_the_text_asks_for_them(world: Microworld) -> None:
    for row in world.load("needle", "heldout"):
        assert row["text"].endswith("the pass key is")
        assert row["text"].count(f"the pass key is {row['answer']} .") == 1
        assert len(row["text"].split()) + 3 == int(row["kind"])
    depths = Counter(world.load("needle", "heldout")["depth"])
    assert set(depths) == {0.0, 0.25, 0.5, 0.75, 1.0}
    train = set(world.load("needle", "train")["answer"])
    assert train.isdisjoint(world.load("needle", "heldout")["answer"])


# ---- the source


@pytest.mark.parametrize("split", ["train", "heldout"])
@pytest.mark.parametrize("view", ["text", "chat", "preference", "choice", "refusal", "unknown", "needle"])
def test_every_view_has_its_columns(world: Microworld, view: str, split: str) -> None:
    rows = world.load(view, split)
    assert set(VIEW_COLUMNS[view]) <= set(rows.column_names)
    assert len(rows)


def test_an_unknown_view_lists_the_known_ones(world: Microworld) -> None:
    with pytest.raises(DataError, match="has no view 'texts'"):
        world.load("texts", "train")


def test_the_size_of_the_training_text_follows_the_option() -> None:
    assert len(other(training_documents=1480).load("text", "train")) == 1480


SCRIPT = """
from pathlib import Path
from phasegate.core.data.hashing import digest
from phasegate.core.data.source import SourceContext
from phasegate.plugins.sources.microworld import Microworld, MicroworldConfig
config = MicroworldConfig(training_documents=700, chats=70, pairs=70, needles=20)
world = Microworld(config, context=SourceContext(root=Path(), name="world"))
print(digest([world.load(view, split).to_list() for view in world.views() for split in ("train", "heldout")]))
"""


def test_other_processes_with_other_string_hashes_make_the_same_rows(tmp_path: Path) -> None:
    found = set()
    for seed in ("1", "2"):
        environment = {**os.environ, "PYTHONHASHSEED": seed, "HF_HUB_OFFLINE": "1"}
        done = subprocess.run(
            [sys.executable, "-c", SCRIPT], capture_output=True, text=True, env=environment, cwd=tmp_path, check=False
        )
        assert done.returncode == 0, done.stderr
        found.add(done.stdout.strip())
    assert len(found) == 1
    assert json.dumps(sorted(found)) != "[]"
