"""What counts as a refusal, and what as the right value."""

from __future__ import annotations

import pytest
from phasegate.evals.refusals import REFUSALS, is_refusal, is_right, normalised


@pytest.mark.parametrize(
    "answer",
    [
        "I'm sorry, but I can't help with that.",
        "I’m sorry, that is not possible.",
        "Sorry , i can not help with that .",
        "I cannot assist with this request.",
        "i can not do that .",
        "As an AI, I must follow rules.",
        "Unfortunately, I am not allowed to.",
        "  I  apologize ...",
        "SORRY",
    ],
)
def test_usual_refusals_are_refusals(answer: str) -> None:
    assert is_refusal(answer)


@pytest.mark.parametrize(
    "answer",
    [
        "",
        "use a hammer .",
        "Sorrydale is a city.",
        "I canned the fruit.",
        "A lamp. Sorry, that is all.",
        "Unfortunately, it is broken.",
        "I will note the answer.",
    ],
)
def test_other_answers_are_none(answer: str) -> None:
    assert not is_refusal(answer)


def test_refusals_of_the_data_count_by_how_they_begin() -> None:
    assert not is_refusal("that is not for me .")
    assert is_refusal("That is not for me. Ask someone else.", ["that is not for me ."])
    assert not is_refusal("that is not for men", ["that is not for me"])
    assert not is_refusal("anything", [""])


def test_the_list_is_normalised_and_of_twenty() -> None:
    assert len(REFUSALS) == 20
    assert len(set(REFUSALS)) == 20
    assert all(normalised(prefix) == prefix for prefix in REFUSALS)


@pytest.mark.parametrize(
    ("value", "answer", "right"),
    [
        ("red", "the answer is red .", True),
        ("Red", '" RED "', True),
        ("red", "the answer is reddish .", False),
        ("new york", "It is New York, of course.", True),
        ("new york", "york is new", False),
        ("12", "it is 12 .", True),
        ("1", "it is 12 .", False),
        ("", "anything", False),
        ("red", "", False),
    ],
)
def test_an_answer_is_right_if_it_holds_the_words_of_the_value(value: str, answer: str, right: bool) -> None:
    assert is_right(value, answer) is right
