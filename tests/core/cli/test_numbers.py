"""How numbers are written."""

from __future__ import annotations

import math

import pytest
from phasegate.core.cli.numbers import count, duration, hours, interval, money, number, size


@pytest.mark.parametrize(
    ("value", "text"), [(0, "0"), (999, "999"), (1000, "1 k"), (1536, "1.54 k"), (999_600, "1 M"), (7.1e18, "7.1 E")]
)
def test_counts_have_three_digits_and_a_suffix(value: float, text: str) -> None:
    assert count(value) == text


@pytest.mark.parametrize(("value", "text"), [(100, "100 B"), (1024, "1 KiB"), (1.5 * 2**30, "1.5 GiB")])
def test_sizes_are_powers_of_1024(value: float, text: str) -> None:
    assert size(value) == text


@pytest.mark.parametrize(
    ("value", "text"), [(0, "–"), (1e-5, "< 1 s"), (0.25, "0:15:00"), (23.5, "23:30:00"), (1234.4, "1,234 h")]
)
def test_hours_say_less_than_a_second_and_drop_minutes_when_there_are_many(value: float, text: str) -> None:
    assert hours(value) == text


@pytest.mark.parametrize(("value", "text"), [(0, "–"), (0.004, "< 0.01"), (0.5, "0.50"), (1234567.891, "1,234,567.89")])
def test_money_has_two_digits_after_the_point(value: float, text: str) -> None:
    assert money(value) == text


def test_small_formats() -> None:
    assert duration(3661.4) == "1:01:01"
    assert number(None) == "–" and number(0.123456) == "0.1235"
    assert interval(-math.inf, 0.5) == "[-inf, 0.5]"
