"""What follows from where a run stands: speed, time left, and the words for it."""

from __future__ import annotations

import math

import pytest
from phasegate.core.cli.view import Pace, Training, View, bars, bound_of, list_of, losses, spread, terms, wrapped
from phasegate.core.config.schema import CriterionSection


def training(**changes: float) -> Training:
    """80 of 100 steps were done before; 10 more took 10 seconds, with 500 tokens each."""
    values = {
        "first": 80,
        "steps": 100,
        "tokens": 500.0,
        "began": 100.0,
        "reached": 90,
        "logged": 90,
        "logged_at": 110.0,
    }
    return Training(**(values | changes))  # type: ignore[arg-type]


def test_speed_and_time_left_count_only_what_this_process_did() -> None:
    assert training().speed == 500.0
    assert training().left(110.0) == 10.0


def test_the_time_left_runs_down_between_two_logs_and_never_below_nothing() -> None:
    assert training().left(114.0) == 6.0
    assert training().left(150.0) == 0.0


def test_before_the_first_log_nothing_is_said_of_speed() -> None:
    fresh = training(reached=80, logged=80, logged_at=0.0)
    assert fresh.speed is None and fresh.left(120.0) is None


def test_what_is_left_of_the_run_takes_as_long_per_flop_as_what_was_done() -> None:
    # 30 + half of 20 of 100 FLOPs are done, in 80 seconds.
    pace = Pace(total=100.0, done=30.0, step=20.0, began=1000.0)
    assert pace.left(0.5, 1080.0) == 60 * 80 / 40


def test_what_an_earlier_start_did_says_nothing_of_the_pace_of_this_one() -> None:
    pace = Pace(total=100.0, done=30.0, step=20.0, skipped=35.0, began=1000.0)
    assert pace.left(0.5, 1080.0) == 60 * 80 / 5


def test_where_nothing_was_done_nothing_is_said_of_the_run() -> None:
    assert Pace(total=100.0, began=1000.0).left(0.0, 1080.0) is None
    assert Pace(total=100.0, done=5.0).left(0.0, 1080.0) is None


def test_a_run_never_has_less_left_than_its_step() -> None:
    view = View(began=0.0, phases=1, pace=Pace(total=1.0, step=1.0, began=109.0), training=training())
    assert view.left(110.0) == 10.0


def test_an_even_load_is_the_fourth_level_and_twice_that_the_highest() -> None:
    assert bars([0.25] * 4) == "▄▄▄▄"
    assert bars([0.5, 0.3, 0.2, 0.0]) == "█▅▃·"
    assert bars([1.0, 0.0]) == "█·"


def test_a_little_is_a_low_bar_and_hardly_anything_a_dot() -> None:
    assert bars([0.0101 / 2, 1 - 0.0101 / 2]) == "▁█"
    assert bars([0.0099 / 2, 1 - 0.0099 / 2]) == "·█"


def test_a_layer_that_routed_nothing_has_dots_and_no_spread() -> None:
    assert bars([math.nan, math.nan]) == "··"
    assert spread([[math.nan, math.nan], [0.25, 0.75]]) == "25.0% to 75.0%"
    assert spread([[math.nan]]) == "–"


def test_terms_are_shown_raw_and_weighted_and_the_task_is_none_of_them() -> None:
    values = {"loss": 2.5, "loss/task": 2.25, "loss/balance": 1.0, "loss/balance/weighted": 0.05, "loss/replay": 3.0}
    assert losses(values) == "2.5 in all, task 2.25"
    assert terms({**values, "router/dead": 1.0}) == ["balance 1 (0.05)", "replay 3"]


def test_what_does_not_fit_is_counted() -> None:
    assert list_of(["one", "two", "three"], 40) == "one, two, three"
    assert list_of(["one", "two", "three"], 14) == "one and 2 more"
    assert list_of(["a-name-that-is-too-long", "two"], 5) == "a-name-that-is-too-long and 1 more"


def test_names_go_on_in_a_second_line() -> None:
    assert wrapped(["one", "two", "three", "four"], 10) == ["one, two,", "three and 1 more"]
    assert wrapped(["one"], 10) == ["one"]
    assert wrapped([], 10) == []


@pytest.mark.parametrize(
    ("bounds", "text"),
    [
        ({"at_least": 0.7}, "≥ 0.7"),
        ({"at_most": 1.2}, "≤ 1.2"),
        ({"at_least": 0.0, "at_most": 0.3}, "0 … 0.3"),
        ({"at_least": -0.02, "against": "parent", "statistic": "difference"}, "≥ -0.02 against parent"),
    ],
)
def test_a_bound_reads_as_it_is_meant(bounds: dict[str, object], text: str) -> None:
    assert bound_of(CriterionSection(use="choice", metric="acc", **bounds)) == text  # type: ignore[arg-type]
