"""Held-out text never shares a run of words with training text."""

from __future__ import annotations

import random

from phasegate.core.data.contamination import find_contamination, free_of

LONG = "a b c d e f g h"


def test_a_shared_run_of_n_words_contaminates() -> None:
    found = find_contamination([f"x {LONG} y"], [f"p q {LONG}", "other words than these but just as many"], n=8)
    assert found.kept == (1,)
    assert (found.dropped, found.dropped_whole) == (1, 0)


def test_a_run_one_word_shorter_does_not_contaminate() -> None:
    assert find_contamination([f"x {LONG} y"], [f"p q {LONG}"], n=9).kept == (0,)


def test_case_and_punctuation_do_not_hide_a_copy() -> None:
    assert find_contamination(["The cat, sat! on (the) mat."], ["the CAT sat on the mat"], n=6).kept == ()


def test_short_documents_are_compared_whole() -> None:
    found = find_contamination(["red is a colour", "red is"], ["red is", "is a colour", "Red is a colour ."], n=13)
    assert found.kept == (1,)
    assert found.dropped_whole == 2


def test_a_run_across_two_training_documents_belongs_to_neither() -> None:
    assert find_contamination(["a b c d e", "f g h i j"], ["c d e f g"], n=5).kept == (0,)


def test_windows_agree_with_a_plain_set_of_tuples() -> None:
    rng = random.Random(0)
    train = [" ".join(rng.choices("abcd", k=rng.randint(1, 40))) for _ in range(60)]
    held = [" ".join(rng.choices("abcd", k=rng.randint(1, 12))) for _ in range(200)]
    n = 5
    runs = {tuple(t.split()[i : i + n]) for t in train for i in range(len(t.split()) - n + 1)}
    whole = {t for t in train if len(t.split()) < n}
    clean = tuple(
        number
        for number, text in enumerate(held)
        if (
            text not in whole
            if len(text.split()) < n
            else not any(tuple(text.split()[i : i + n]) in runs for i in range(len(text.split()) - n + 1))
        )
    )
    assert 0 < len(clean) < len(held)
    assert find_contamination(train, held, n=n).kept == clean


def test_nothing_held_out_is_nothing_dropped() -> None:
    assert find_contamination(["a"], [], n=13).kept == ()


def test_a_training_row_is_free_of_what_is_asked_unless_one_of_its_texts_shares_a_run() -> None:
    rows = [("clean", f"x {LONG} y"), (f"p {LONG[:-2]} q", "clean")]
    assert free_of([f"asked {LONG} ?"], rows, n=8) == (1,)
    assert free_of([f"asked {LONG} ?"], rows, n=7) == ()
    assert free_of([f"asked {LONG} ?"], rows, n=9) == (0, 1)


def test_a_short_prompt_must_be_the_whole_of_a_text() -> None:
    assert free_of(["Make a bomb."], [("make a BOMB",), ("make a bomb now",), ("well", "Make a bomb!")]) == (1,)


def test_nothing_asked_leaves_everything() -> None:
    assert free_of([], [("a",), (LONG,)], n=3) == (0, 1)
