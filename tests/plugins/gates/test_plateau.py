"""The plateau gate."""

from __future__ import annotations

import math
from typing import Any

import pytest
from phasegate.plugins.gates.plateau import PlateauConfig, PlateauGate


def log(losses: list[float]) -> list[dict[str, float]]:
    return [{"step": 10.0 * i, "loss": loss} for i, loss in enumerate(losses)]


def test_a_straight_fall_gives_its_own_improvement(context: Any) -> None:
    """From 2.0 to 1.0 over 20 points, the last half window falls from 1.5 by half of the whole."""
    losses = [2.0 - i / 20 for i in range(21)]
    found = PlateauGate(PlateauConfig(window=0.5)).measure(context({}, history=log(losses)))
    assert found["improvement"].value == pytest.approx(0.5 / 1.5)
    assert found["slope"].value == pytest.approx(-0.005)
    assert found["improvement"].n == 11


def test_a_flat_noisy_end_has_bounds_around_zero(context: Any) -> None:
    losses = [3.0] * 10 + [1.0 + 0.01 * (-1) ** i for i in range(12)]
    found = PlateauGate(PlateauConfig(window=0.5)).measure(context({}, history=log(losses)))["improvement"]
    assert found.interval is not None
    assert found.interval[0] < 0 < found.interval[1]


def test_entries_without_a_loss_are_passed_over(context: Any) -> None:
    history = [entry for pair in zip(log([1.0] * 30), [{"eval": 1.0}] * 30, strict=True) for entry in pair]
    assert PlateauGate().measure(context({}, history=history))["loss"].value == 1.0


def test_too_few_points_are_missing(context: Any) -> None:
    found = PlateauGate().measure(context({}, history=log([1.0] * 6)))["improvement"]
    assert found.missing is not None and "log more often" in found.missing


def test_an_empty_log_is_missing(context: Any) -> None:
    assert PlateauGate().measure(context({}))["improvement"].missing == "the training log has no 'loss'"


def test_a_loss_of_nan_is_missing(context: Any) -> None:
    found = PlateauGate().measure(context({}, history=log([1.0] * 40 + [math.nan])))["improvement"]
    assert math.isnan(found.value)


def test_only_the_last_step_of_a_phase_counts(context: Any) -> None:
    history = log([9.0 - i / 10 for i in range(40)]) + log([1.0] * 40)
    assert PlateauGate(PlateauConfig(window=1.0)).measure(context({}, history=history))["loss"].value == 1.0
