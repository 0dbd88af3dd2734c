"""The gate over logged values."""

from __future__ import annotations

import math
from typing import Any

import pytest
from phasegate.plugins.gates.logged import LoggedConfig, LoggedGate


def log(values: list[float], key: str = "router/gini") -> list[dict[str, float]]:
    return [{"step": 10.0 * i, key: value} for i, value in enumerate(values, start=1)]


def measure(context: Any, history: list[dict[str, float]], **options: Any) -> Any:
    return LoggedGate(LoggedConfig(key="router/gini", **options)).measure(context({}, history=history))


def test_it_gives_the_last_the_mean_and_the_ends(context: Any) -> None:
    found = measure(context, log([0.4, 0.1, 0.2, 0.3]))
    assert {name: part.value for name, part in found.items()} == {
        "last": 0.3,
        "mean": pytest.approx(0.25),
        "max": 0.4,
        "min": 0.1,
    }
    assert {(part.kind, part.n) for part in found.values()} == {("exact", 4)}


def test_a_window_is_a_share_of_the_last_rows(context: Any) -> None:
    found = measure(context, log([0.9] * 6 + [0.2, 0.1]), window=0.25)
    assert (found["max"].value, found["max"].n) == (0.2, 2)


def test_a_small_window_still_holds_one_row(context: Any) -> None:
    found = measure(context, log([0.9, 0.1]), window=0.01)
    assert (found["mean"].value, found["mean"].n) == (0.1, 1)


def test_rows_without_the_value_are_passed_over(context: Any) -> None:
    rows = [row for pair in zip(log([0.1] * 4), log([1.0] * 4, "loss"), strict=True) for row in pair]
    assert measure(context, rows)["mean"].n == 4


def test_only_the_last_step_that_logged_it_counts(context: Any) -> None:
    history = log([0.9] * 5) + log([0.1] * 3) + log([2.0] * 5, "loss")
    found = measure(context, history)
    assert (found["max"].value, found["max"].n) == (0.1, 3)


def test_a_value_that_was_never_logged_is_missing(context: Any) -> None:
    found = measure(context, log([1.0], "loss"))
    assert found["last"].missing == "the training log has no 'router/gini'"
    assert set(found) == {"last", "mean", "max", "min"}


def test_a_value_that_is_no_number_is_missing(context: Any) -> None:
    found = measure(context, log([0.1, math.nan]))
    assert found["max"].missing == "'router/gini' in the training log is not always a finite number"
