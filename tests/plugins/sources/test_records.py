"""Records become rows."""

from __future__ import annotations

from typing import Any

import pytest
from phasegate.plugins.sources.dialogues import parse_dialogue, split_pair
from phasegate.plugins.sources.options import RecordOptions, check_options
from phasegate.plugins.sources.records import read_rows
from phasegate.plugins.sources.templates import render
from phasegate.registry.errors import DataError


def user(content: str) -> dict[str, str]:
    return {"role": "user", "content": content}


def assistant(content: str) -> dict[str, str]:
    return {"role": "assistant", "content": content}


def rows(records: list[Any], share: float = 0.0, /, **options: Any) -> Any:
    made = RecordOptions(**{"domain": "general", **options})
    check_options(made, "mine")
    return read_rows(records, made, "mine", share)


def test_templates_join_fields_and_drop_what_is_empty() -> None:
    record = {"instruction": "Do it.", "context": None, "data": {"name": "x"}, "list": [1, "é"]}
    assert render("{instruction}\n{context}", record, "mine") == "Do it."
    assert render("{data.name}: {list}", record, "mine") == 'x: [1, "é"]'
    assert render("*", {"a": 1}, "mine") == '{"a": 1}'


def test_a_missing_field_names_the_nearest() -> None:
    with pytest.raises(DataError, match=r"'mine' has a record without the field 'txt'; .* Did you mean 'text'"):
        rows([{"text": "a"}], fields={"text": "{txt}"})


def test_instructions_with_context_become_chats() -> None:
    made = rows(
        [{"instruction": "Name it.", "context": "A tree.", "response": "Oak."}],
        view="chat",
        fields={"prompt": "{instruction}\n{context}", "completion": "{response}"},
    ).columns["train"]
    assert made["prompt"] == [[user("Name it.\nA tree.")]]
    assert made["completion"] == [[assistant("Oak.")]]
    assert made["check"] == [""]


def test_calculations_are_taken_out_of_worked_answers() -> None:
    answer = "She sold 48/2 = <<48/2=24>>24 clips.\n#### 24"
    made = rows(
        [{"question": "How many?", "answer": answer}],
        view="chat",
        fields={"prompt": "{question}", "completion": "{answer}"},
        strip_calculations=True,
    ).columns["train"]
    assert made["completion"][0][0]["content"] == "She sold 48/2 = 24 clips.\n#### 24"


def test_dialogues_are_parsed_into_messages() -> None:
    text = "\n\nHuman: Hi\n\nAssistant: Yes?\n\nLine two.\n\nHuman: Bye\n\nAssistant: See you."
    assert parse_dialogue(text) == [user("Hi"), assistant("Yes?\n\nLine two."), user("Bye"), assistant("See you.")]
    assert parse_dialogue("no dialogue") == []


def test_a_pair_of_dialogues_is_cut_at_its_last_answer() -> None:
    chosen, rejected = [user("a"), assistant("good")], [user("a"), assistant("bad")]
    assert split_pair(chosen, rejected) == ([user("a")], [assistant("good")], [assistant("bad")])


@pytest.mark.parametrize(
    ("chosen", "rejected"),
    [
        ([user("a"), assistant("x")], [user("b"), assistant("y")]),
        ([user("a"), assistant("x")], [user("a"), assistant("x")]),
        ([user("a"), assistant("x")], [user("a"), user("x")]),
        ([user("a"), assistant("")], [user("a"), assistant("y")]),
        ([], [user("a"), assistant("y")]),
    ],
)
def test_pairs_that_cannot_be_compared_are_left_out(chosen: list[Any], rejected: list[Any]) -> None:
    assert split_pair(chosen, rejected) is None


def test_broken_dialogues_are_counted() -> None:
    good = {"chosen": "\n\nHuman: a\n\nAssistant: b", "rejected": "\n\nHuman: a\n\nAssistant: c"}
    made = rows([good, {**good, "rejected": "?"}], view="preference", dialogue="hh-rlhf")
    assert (made.read, made.skipped) == (2, {"empty or broken": 1})
    assert made.columns["train"]["prompt"] == [[user("a")]]


def test_fields_may_hold_messages_already() -> None:
    record = {
        "messages": [{"from": "human", "value": "a"}],
        "chosen": {"role": "assistant", "content": "b"},
        "rejected": "c",
    }
    made = rows([record], view="preference", fields={"prompt": "{messages}"}).columns["train"]
    assert (made["prompt"], made["chosen"], made["rejected"]) == ([[user("a")]], [[assistant("b")]], [[assistant("c")]])


def test_a_message_of_an_unknown_form_is_an_error() -> None:
    with pytest.raises(DataError, match="not a role"):
        rows(
            [{"messages": [{"role": "robot", "content": "a"}], "completion": "b"}],
            view="chat",
            fields={"prompt": "{messages}"},
        )


@pytest.mark.parametrize(("answer", "place"), [(1, 1), ("1", 1), ("B", 1), ("blue", 1), ("red", 0)])
def test_the_right_choice_may_be_a_number_a_letter_or_the_text(answer: Any, place: int) -> None:
    made = rows([{"question": "Q", "choices": ["red", "blue"], "answer": answer}], view="choice")
    assert made.columns["heldout"]["answer"] == [place]


def test_choice_questions_are_held_out_unless_said_otherwise() -> None:
    records = [{"question": f"Q{n}", "choices": ["a", "b"], "answer": 0} for n in range(20)]
    assert len(rows(records, view="choice").columns["heldout"]["question"]) == 20
    assert len(rows(records, view="choice", held_out=0.0).columns["train"]["question"]) == 20


def test_where_keeps_what_matches() -> None:
    records = [{"text": "a", "lang": "en"}, {"text": "b", "lang": "pt"}, {"text": "c", "lang": "fr"}]
    assert rows(records, where={"lang": "pt"}).columns["train"]["text"] == ["b"]
    assert rows(records, where={"lang": ["pt", "en"]}).columns["train"]["text"] == ["a", "b"]


def test_domains_come_from_a_field_and_may_be_renamed() -> None:
    records = [{"text": "a", "subject": "algebra"}, {"text": "b", "subject": "law"}]
    made = rows(records, domain=None, domain_field="subject", domains={"algebra": "mathematics"})
    assert made.columns["train"]["domain"] == ["mathematics"]
    assert made.skipped == {"other domain": 1}
    assert rows(records, domain=None, domain_field="subject").domains() == {"algebra", "law"}


def test_limit_keeps_rows_spread_over_the_source() -> None:
    made = rows([{"text": str(n)} for n in range(10)], limit=5)
    assert made.columns["train"]["text"] == ["1", "3", "5", "7", "9"]
    assert made.skipped == {"limit": 5}


def test_the_held_out_split_follows_content_and_nothing_else() -> None:
    records = [{"text": f"document {n}"} for n in range(400)]
    made, turned = rows(records, 0.1), rows(records[::-1], 0.1)
    assert sorted(made.columns["heldout"]["text"]) == sorted(turned.columns["heldout"]["text"])
    assert 20 <= len(made.columns["heldout"]["text"]) <= 60
    assert set(made.columns["train"]["text"]).isdisjoint(made.columns["heldout"]["text"])


def test_nothing_left_says_why() -> None:
    with pytest.raises(DataError, match=r"no row left of 2 records \(1 by where, 1 by empty or broken\)"):
        rows([{"text": "a", "k": 0}, {"text": " ", "k": 1}], where={"k": 1})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"domain": None}, "needs either domain or domain_field"),
        ({"domain_field": "x"}, "needs either domain or domain_field"),
        ({"dialogue": "hh-rlhf"}, "set view: preference"),
        ({"fields": {"txt": "{a}"}}, "Did you mean 'text'"),
        ({"held_out": 1.5}, "a share in"),
    ],
)
def test_options_that_contradict_are_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        rows([{"text": "a"}], **options)
