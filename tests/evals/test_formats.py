"""Verifiable formats and the judge with ground truth."""

from __future__ import annotations

import json

import pytest
from phasegate.evals.formats import FORMATS, check_format, judge_answer
from phasegate.registry.errors import DataError

RIGHT = {
    "plain": "steel",
    "upper": "STEEL",
    "json": '{ "answer" : " steel " }',
    "brackets": "[ steel ]",
    "twice": "steel steel",
    "done": "steel done",
    "bullet": "- steel",
    "quotes": '" steel "',
}


def check(name: str) -> str:
    return json.dumps({"format": name})


@pytest.mark.parametrize("name", sorted(RIGHT))
def test_an_answer_passes_its_own_format_and_no_other(name: str) -> None:
    assert {other for other in FORMATS if check_format(check(other), RIGHT[name])} == {name}


@pytest.mark.parametrize(
    ("name", "answer"),
    [
        ("plain", "it is steel ."),
        ("plain", ""),
        ("plain", "Steel"),
        ("upper", "STEEL DONE"),
        ("json", '{ "answer" : "steel" '),
        ("json", '{ "value" : "steel" }'),
        ("json", '{ "answer" : "steel", "more" : 1 }'),
        ("json", '"steel"'),
        ("brackets", "[ steel"),
        ("twice", "steel bronze"),
        ("twice", "steel steel steel"),
        ("done", "done steel"),
        ("bullet", "steel -"),
        ("quotes", '" steel'),
    ],
)
def test_a_near_miss_fails(name: str, answer: str) -> None:
    assert not check_format(check(name), answer)


def test_blanks_around_an_answer_do_not_count() -> None:
    assert check_format(check("plain"), "  steel\n")
    assert check_format(check("json"), '{"answer": 12}')
    assert check_format(check("plain"), "pão")


@pytest.mark.parametrize("text", ["", "steel", '["plain"]', '{"format": "poem"}', "{}"])
def test_an_unknown_check_is_an_error(text: str) -> None:
    with pytest.raises(DataError):
        check_format(text, "steel")


TRUTH = json.dumps({"value": "red", "good": ["it is red ."], "bad": ["red i guess"], "others": ["blue", "green"]})


@pytest.mark.parametrize(
    ("answer", "score"),
    [
        ("it is red .", 1.0),
        ("  it is  red . ", 1.0),
        ("red i guess", 0.5),
        ("RED", 0.5),
        ("it is blue .", 0.0),
        ("it is red . or blue", 0.0),
        ("reddish", 0.0),
        ("", 0.0),
    ],
)
def test_the_judge_wants_the_value_first_and_then_the_style(answer: str, score: float) -> None:
    assert judge_answer(TRUTH, answer) == score


def test_a_truth_without_a_value_is_an_error() -> None:
    with pytest.raises(DataError, match="needs the keys"):
        judge_answer('{"good": []}', "red")
