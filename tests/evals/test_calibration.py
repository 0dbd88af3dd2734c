"""Formulas of calibration and selective prediction, against numbers worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from phasegate.evals.calibration import (
    aurc,
    auroc,
    brier,
    calibration_error,
    excess_aurc,
    resampled,
    risk_coverage,
    spread,
)

SCORES, RIGHT = [0.9, 0.8, 0.7, 0.6], [1, 0, 1, 0]


def test_the_calibration_error_weighs_each_bins_gap_by_its_documents() -> None:
    # Bin of 0.95: accuracy 1/2, gap 0.45; bin of 0.15: accuracy 0, gap 0.15; half the documents in each.
    assert float(calibration_error([0.95, 0.95, 0.15, 0.15], [1, 0, 0, 0])) == pytest.approx(0.30)


def test_a_bin_holds_its_upper_edge() -> None:
    # In one bin: confidence 0.15, accuracy 0.5. In two bins it would be (0.8 + 0.1) / 2 = 0.45.
    assert float(calibration_error([0.2, 0.1], [1, 0], bins=5)) == pytest.approx(0.35)


def test_confidence_zero_and_one_have_bins() -> None:
    assert float(calibration_error([0.0, 1.0], [0, 1])) == 0.0


def test_the_score_that_the_asymmetric_loss_asks_for_is_off_by_what_the_specification_says() -> None:
    # A perfect probe that knows p = 0.95 under a weight of 10 says 0.95 / (0.95 + 10 * 0.05) = 0.655.
    raw = 0.95 / (0.95 + 10 * 0.05)
    right = [1] * 95 + [0] * 5
    assert raw == pytest.approx(0.655, abs=5e-4)
    assert float(calibration_error([raw] * 100, right)) == pytest.approx(0.95 - raw)
    inverted = 10 * raw / (1 - raw + 10 * raw)
    assert float(calibration_error([inverted] * 100, right)) == pytest.approx(0.0, abs=1e-12)


def test_the_brier_score_is_the_mean_squared_distance() -> None:
    assert float(brier([0.9, 0.4], [1, 0])) == pytest.approx((0.01 + 0.16) / 2)


def test_tied_scores_count_half_in_the_auroc() -> None:
    # Pairs: (.9, .8) (.9, .1) (.8, .1) won, (.8, .8) tied: 3.5 of 4.
    assert float(auroc([0.9, 0.8, 0.8, 0.1], [1, 1, 0, 0])) == 0.875


def test_there_is_no_auroc_of_one_class() -> None:
    assert math.isnan(float(auroc([0.9, 0.8], [1, 1])))


def test_risk_is_the_error_among_the_most_confident() -> None:
    coverage, risk, share = risk_coverage(SCORES, RIGHT)
    assert coverage.tolist() == [0.25, 0.5, 0.75, 1.0]
    assert risk.tolist() == pytest.approx([0, 1 / 2, 1 / 3, 1 / 2])
    assert share.tolist() == [0.25] * 4


def test_the_area_under_the_risk_coverage_curve_is_the_mean_risk() -> None:
    assert float(aurc(SCORES, RIGHT)) == pytest.approx((0 + 1 / 2 + 1 / 3 + 1 / 2) / 4)


def test_documents_of_one_confidence_are_answered_together_whatever_their_order() -> None:
    assert float(aurc([0.5] * 4, [1, 1, 0, 1])) == float(aurc([0.5] * 4, [0, 1, 1, 1])) == 0.25


def test_the_excess_is_what_the_best_ranking_would_save() -> None:
    # Best order: right, right, wrong, wrong, with risks 0, 0, 1/3, 1/2.
    assert float(excess_aurc(SCORES, RIGHT)) == pytest.approx(1 / 3 - (1 / 3 + 1 / 2) / 4)


def test_a_ranking_of_all_right_before_all_wrong_answers_has_no_excess() -> None:
    assert float(excess_aurc([0.9, 0.8, 0.2, 0.1], [1, 1, 0, 0])) == pytest.approx(0.0, abs=1e-12)


def test_the_best_area_goes_to_the_limit_of_its_source() -> None:
    right = np.repeat([1, 0], [6000, 4000])
    best = float(aurc(-np.arange(10000.0), right)) - float(excess_aurc(-np.arange(10000.0), right))
    assert best == pytest.approx(0.4 + 0.6 * math.log(0.6), abs=1e-4)


@pytest.mark.parametrize("statistic", [aurc, auroc, brier, calibration_error])
def test_a_document_drawn_twice_counts_as_two(statistic: object) -> None:
    weights = np.array([[2.0, 1.0, 0.0, 1.0], [1.0, 1.0, 1.0, 1.0]])
    found = statistic(SCORES, RIGHT, weights)  # type: ignore[operator]
    repeated = statistic([0.9, 0.9, 0.8, 0.6], [1, 1, 0, 0])  # type: ignore[operator]
    assert found.tolist() == pytest.approx([float(repeated), float(statistic(SCORES, RIGHT))])  # type: ignore[operator]


def test_groups_are_drawn_as_a_whole_and_as_many_as_there_are() -> None:
    drawn = resampled(["a", "b", "b", "c"], 200, seed=0)
    assert (drawn[:, 1] == drawn[:, 2]).all()
    assert set((drawn[:, 0] + drawn[:, 1] + drawn[:, 3]).tolist()) == {3.0}


def test_the_same_seed_draws_the_same_groups() -> None:
    assert (resampled(range(5), 10, seed=3) == resampled(range(5), 10, seed=3)).all()
    assert (resampled(range(5), 10, seed=3) != resampled(range(5), 10, seed=4)).any()


def test_the_spread_of_a_mean_is_its_standard_error() -> None:
    right = np.repeat([1.0, 0.0], [300, 100])
    found = spread(brier(np.ones(400), right, resampled(range(400), 4000, seed=0)))
    assert found == pytest.approx(math.sqrt(0.75 * 0.25 / 400), rel=0.05)


def test_phrasings_that_go_together_make_an_interval_wider() -> None:
    right = np.repeat([1.0, 0.0], [300, 100])
    alone = spread(brier(np.ones(400), right, resampled(range(400), 1000, seed=0)))
    together = spread(brier(np.ones(400), right, resampled(np.arange(400) // 4, 1000, seed=0)))
    assert together == pytest.approx(2 * alone, rel=0.15)


def test_replicates_without_a_value_do_not_count() -> None:
    assert spread(np.array([1.0, 3.0, math.nan])) == pytest.approx(math.sqrt(2))
    assert math.isnan(spread(np.array([1.0, math.nan])))
