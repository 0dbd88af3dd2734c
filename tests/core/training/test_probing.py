"""The fits of confidence probes reach the minima that their losses have."""

from __future__ import annotations

import math

import numpy as np
import pytest
from phasegate.core.training.probing import fit_depth, fit_linear, fit_scale
from sklearn.linear_model import LogisticRegression


def shares(right: int, wrong: int) -> np.ndarray:
    return np.repeat([1.0, 0.0], [right, wrong])


def clouds(count: int = 400, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Two overlapping clouds in three dimensions; the right answers lie to the right."""
    stream = np.random.default_rng(seed)
    right = stream.random(count) < 0.5
    return stream.normal(size=(count, 3)) + np.outer(right, [1.0, 0.5, 0.0]), right.astype(float)


@pytest.mark.parametrize("w", [1.0, 2.0, 8.0, 10.0])
def test_the_log_odds_do_not_depend_on_what_a_wrong_answer_costs(w: float) -> None:
    right = shares(9500, 500)
    _, bias = fit_linear(np.zeros((10_000, 1)), right, np.full(10_000, w), 1.0)
    assert bias == pytest.approx(math.log(19), abs=0.01)


def test_a_domain_is_told_by_its_cost_and_not_by_the_states() -> None:
    # Two domains, equally often right, without anything in the states: without the offset they could not both be met.
    right = np.r_[shares(80, 20), shares(80, 20)]
    _, bias = fit_linear(np.zeros((200, 1)), right, np.repeat([10.0, 2.0], 100), 1.0)
    assert bias == pytest.approx(math.log(4), abs=0.05)


def test_with_one_cost_for_all_it_is_the_weighted_logistic_regression_of_scikit_learn() -> None:
    features, right = clouds()
    weights, bias = fit_linear(features, right, np.full(len(right), 8.0), 0.05)
    library = LogisticRegression(C=0.05, tol=1e-10, max_iter=10_000)
    library.fit(features, right, sample_weight=np.where(right > 0, 1.0, 8.0))
    # Platt's half a document moves the labels of 200 by 1/202.
    assert weights == pytest.approx(library.coef_[0], abs=0.03)
    assert bias - math.log(8) == pytest.approx(library.intercept_[0], abs=0.05)


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_answers_that_are_all_alike_have_a_finite_fit(share: float) -> None:
    right = np.full(98, share)
    weights, bias = fit_linear(np.zeros((98, 2)), right, np.full(98, 10.0), 0.05)
    assert np.isfinite(weights).all()
    assert bias == pytest.approx(math.log(99) * (1 if share else -1), abs=1e-2)


def test_a_depth_is_fitted_alike_whatever_the_units_of_its_states() -> None:
    features, right = clouds()
    costs = np.full(len(right), 2.0)
    weights, bias = fit_depth(features, right, costs, 0.05)
    others, shift = fit_depth(features * 10 + 3, right, costs, 0.05)
    assert features @ weights + bias == pytest.approx((features * 10 + 3) @ others + shift, abs=1e-3)


def test_a_dimension_that_never_changes_is_not_blown_up() -> None:
    features, right = clouds()
    dead = np.c_[features, 1.0 + 1e-9 * np.arange(len(right))]
    weights, _ = fit_depth(dead, right, np.ones(len(right)), 0.05)
    assert abs(weights[3]) < 1e-3


def test_a_scale_undoes_overconfidence() -> None:
    stream = np.random.default_rng(1)
    truth = stream.normal(size=20_000) * 1.5
    right = (stream.random(20_000) < 1 / (1 + np.exp(-truth))).astype(float)
    scale, shift = fit_scale(2 * truth + 1, right)
    assert scale == pytest.approx(0.5, abs=0.03)
    assert shift == pytest.approx(-0.5, abs=0.06)


def test_a_scale_never_turns_the_order_of_answers_around() -> None:
    scale, shift = fit_scale(np.r_[np.ones(60), -np.ones(60)], np.r_[shares(20, 40), shares(40, 20)])
    assert scale == 0.0
    assert shift == pytest.approx(0.0, abs=1e-6)


def test_equal_inputs_give_equal_bits() -> None:
    features, right = clouds()
    first, again = (fit_depth(features, right, np.full(len(right), 8.0), 0.05) for _ in range(2))
    assert (first[0] == again[0]).all()
    assert first[1] == again[1]
