"""Intervals against published or hand-computed values."""

from __future__ import annotations

import math

import pytest
from phasegate.evals.intervals import (
    documents_to_resolve,
    mcnemar_exact,
    mean_interval,
    paired_difference,
    rescale,
    wilson,
    win_rate,
    z_quantile,
)


@pytest.mark.parametrize(
    ("successes", "n", "low", "high"),
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_wilson_gives_the_values_of_newcombe_1998_table_1(successes: int, n: int, low: float, high: float) -> None:
    assert wilson(successes, n, 0.95, sides=2) == pytest.approx((low, high), abs=5e-5)


def test_a_one_sided_wilson_bound_equals_the_wider_two_sided_one() -> None:
    assert wilson(30, 40, 0.95, sides=1) == pytest.approx(wilson(30, 40, 0.90, sides=2))


def test_a_wilson_bound_of_a_perfect_score_is_n_over_n_plus_z_squared() -> None:
    z = 1.6448536269514722
    assert wilson(45, 45, 0.95)[0] == pytest.approx(45 / (45 + z * z))


def test_a_proportion_of_nothing_is_anything() -> None:
    assert wilson(0, 0) == (0.0, 1.0)


def test_the_mean_interval_gives_the_values_of_the_nist_handbook() -> None:
    """Section 1.3.5.2: N = 195, mean 9.261460, standard deviation 0.022789, interval 9.258242 to 9.264679."""
    values = [9.261460 + 0.022789, 9.261460 - 0.022789] * 97 + [9.261460]
    assert mean_interval(values, 0.95, sides=2) == pytest.approx((9.258242, 9.264679), abs=2e-6)


def test_the_paired_difference_gives_the_values_of_students_sleep_data() -> None:
    """Student 1908, as printed by R's t.test(extra ~ group, paired): -1.58 [-2.4598858, -0.7001142]."""
    first = [0.7, -1.6, -0.2, -1.2, -0.1, 3.4, 3.7, 0.8, 0.0, 2.0]
    second = [1.9, 0.8, 1.1, 0.1, -0.1, 4.4, 5.5, 1.6, 4.6, 3.4]
    found = paired_difference(first, second, 0.95, sides=2)
    assert (found.value, found.low, found.high) == pytest.approx((-1.58, -2.4598858, -0.7001142), abs=1e-7)


def test_one_value_leaves_a_mean_unbounded() -> None:
    assert mean_interval([0.5]) == (-math.inf, math.inf)


def test_mcnemar_counts_the_tail_of_fair_coins() -> None:
    """2 * (C(12,0) + C(12,1) + C(12,2)) / 2^12 = 158 / 4096."""
    assert mcnemar_exact(10, 2) == pytest.approx(158 / 4096)


def test_mcnemar_without_a_change_is_one() -> None:
    assert mcnemar_exact(0, 0) == 1.0


def test_paired_proportions_use_the_adjusted_wald_interval() -> None:
    """n = 8, one gained, three lost: (2 - 4) / 10 with variance (0.6 - 0.04) / 10, z = 1.6448536."""
    new = [1.0, 0, 0, 0, 1, 1, 1, 1]
    old = [0.0, 1, 1, 1, 1, 1, 1, 1]
    found = paired_difference(new, old)
    half = 1.6448536 * math.sqrt(0.056)
    assert found.value == pytest.approx(-0.25)
    assert (found.low, found.high) == pytest.approx((-0.2 - half, -0.2 + half), abs=1e-6)
    assert (found.gained, found.lost, found.ties) == (1, 3, 4)


def test_unchanged_answers_still_leave_a_width() -> None:
    found = paired_difference([1.0] * 20, [1.0] * 20)
    assert found.low < 0 < found.high


def test_ties_count_half_in_a_win_rate() -> None:
    found = win_rate([2.0, 1.0, 1.0, 0.0], [1.0, 1.0, 1.0, 1.0])
    assert found.value == 0.5
    assert (found.low, found.high) == pytest.approx(wilson(2, 4))


def test_rescaling_an_interval_follows_the_normal_quantiles() -> None:
    low, high = rescale((0.9, 1.3), 1.0, 0.95, 0.975)
    ratio = 1.9599640 / 1.6448536
    assert (low, high) == pytest.approx((1 - 0.1 * ratio, 1 + 0.3 * ratio), abs=1e-6)


@pytest.mark.parametrize(("share", "n", "bound"), [(0.967, 541, 0.95), (0.76, 200, 0.7), (0.725, 1000, 0.7)])
def test_scores_just_above_the_needed_ones_clear_their_bound(share: float, n: int, bound: float) -> None:
    assert wilson(math.ceil(share * n), n)[0] >= bound


def test_needed_documents_of_a_mean_grow_with_the_square_of_the_distance() -> None:
    """Half width 0.2 at n = 25 must shrink to 0.1: four times the documents."""
    assert documents_to_resolve(0.6, 0.5, (0.4, 0.8), 25, proportion=False, confidence=0.95) == 100


def test_needed_documents_of_a_perfect_proportion_follow_wilson() -> None:
    """n / (n + z^2) >= 0.95 needs n >= 19 z^2 = 51.4."""
    assert documents_to_resolve(1.0, 0.95, wilson(20, 20), 20, proportion=True, confidence=0.95) == 52


def test_no_number_of_documents_resolves_a_value_on_its_bound() -> None:
    assert documents_to_resolve(0.5, 0.5, (0.4, 0.6), 25, proportion=False, confidence=0.95) is None


def test_a_confidence_outside_its_range_is_refused() -> None:
    with pytest.raises(ValueError, match="confidence"):
        z_quantile(1.0)
