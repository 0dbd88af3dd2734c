"""Learning rates and loss weights over a step."""

from __future__ import annotations

import pytest
from phasegate.core.config.schema import StepSection, Weight
from phasegate.core.training.schedules import learning_rate_factor, weight_at


def test_the_learning_rate_warms_up_from_zero() -> None:
    factor = learning_rate_factor(StepSection(steps=100, warmup=0.1, schedule="constant"))
    assert [factor(step) for step in (0, 5, 10, 99)] == [0.0, 0.5, 1.0, 1.0]


def test_cosine_is_half_way_between_peak_and_floor_in_the_middle() -> None:
    factor = learning_rate_factor(StepSection(steps=100, warmup=0.0, schedule="cosine", floor=0.1))
    assert factor(0) == 1.0
    assert factor(50) == pytest.approx(0.55)
    assert factor(100) == pytest.approx(0.1)


def test_linear_decay_starts_where_it_is_told() -> None:
    section = StepSection(steps=100, warmup=0.0, schedule="linear", decay_from=0.4, floor=0.05)
    factor = learning_rate_factor(section)
    assert factor(39) == 1.0
    assert factor(70) == pytest.approx(0.525)
    assert factor(100) == pytest.approx(0.05)


def test_decay_never_starts_before_the_warm_up_is_over() -> None:
    factor = learning_rate_factor(StepSection(steps=10, warmup=0.5, schedule="linear", floor=0.0))
    assert [factor(step) for step in (4, 5, 10)] == [0.8, 1.0, 0.0]


def test_a_loss_weight_falls_by_half_a_cosine_and_stays() -> None:
    weight = Weight(start=0.1, end=0.01, over=0.5)
    assert weight_at(weight, 0.0) == pytest.approx(0.1)
    assert weight_at(weight, 0.25) == pytest.approx(0.055)
    assert weight_at(weight, 0.5) == pytest.approx(0.01)
    assert weight_at(weight, 0.9) == pytest.approx(0.01)


def test_a_constant_weight_is_itself() -> None:
    assert weight_at(0.3, 0.7) == 0.3


def test_a_schedule_over_nothing_is_at_its_end() -> None:
    assert weight_at(Weight(start=1.0, end=0.5, over=0.0), 0.0) == 0.5
