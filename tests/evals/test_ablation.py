"""Effects of taking experts away, by hand."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from phasegate.evals.ablation import (
    Change,
    Effect,
    agreement,
    busiest,
    effect_of,
    least_harm,
    owners_of,
    rank_correlation,
)


def effect(**values: float) -> Effect:
    """An effect with these changes, each with a standard error of 0.01 over many documents."""
    domains = {name: Change(value=value, error=0.01, freedom=1e9) for name, value in values.items()}
    mean = sum(values.values()) / len(values)
    return Effect(domains=domains, mean=Change(value=mean, error=0.01, freedom=1e9))


def test_a_domains_change_is_the_mean_difference_of_its_documents() -> None:
    found = effect_of(np.array([-1.0, -3.0, 0.5, 0.1]), np.array([0, 0, 1, 1]), ["code", "books"])
    assert found.domains["code"].value == -2.0
    assert found.domains["books"].value == pytest.approx(0.3)
    assert found.mean.value == pytest.approx(-0.85)
    assert found.most == "code"


def test_bounds_are_students_of_paired_differences() -> None:
    """Differences -1, -3: mean -2, s = sqrt 2, error 1; t(0.95, 1) = 6.3138."""
    (low, high) = effect_of(np.array([-1.0, -3.0]), np.array([0, 0]), ["code"]).domains["code"].bounds()
    assert (low, high) == pytest.approx((-8.3138, 4.3138), abs=1e-4)


def test_domains_count_the_same_however_many_documents_they_have() -> None:
    differences = np.array([-1.0] * 98 + [0.0, 0.0])
    owners = np.array([0] * 98 + [1] * 2)
    assert effect_of(differences, owners, ["code", "books"]).mean.value == -0.5


def test_the_error_of_the_mean_adds_the_variances_of_domains() -> None:
    """Errors 1 and 1 give sqrt 2 / 2; two domains with one degree of freedom each give 2 (Satterthwaite 1946)."""
    found = effect_of(np.array([-1.0, -3.0, 1.0, 3.0]), np.array([0, 0, 1, 1]), ["code", "books"]).mean
    assert found.error == pytest.approx(math.sqrt(2) / 2)
    assert found.freedom == pytest.approx(2.0)


def test_one_document_says_nothing_of_the_spread() -> None:
    found = effect_of(np.array([-1.0, 0.2, 0.3]), np.array([0, 1, 1]), ["code", "books"])
    assert found.domains["code"].bounds() == (-math.inf, math.inf)
    assert found.mean.bounds() == (-math.inf, math.inf)
    assert found.domains["code"].as_dict() == {"value": -1.0, "low": None, "high": None}


def test_a_domain_that_no_document_felt_is_exactly_unchanged() -> None:
    found = effect_of(np.zeros(6), np.array([0, 0, 0, 1, 1, 1]), ["code", "books"])
    assert found.domains["books"].bounds() == (0.0, 0.0)


def test_the_most_affected_domain_is_clear_when_its_bounds_lie_below_all_others() -> None:
    """Each bound is 1.645 errors of 0.01 away: -0.1 and -0.05 are apart, -0.1 and -0.09 are not."""
    assert effect(code=-0.1, books=-0.05).clear
    assert not effect(code=-0.1, books=-0.09).clear


def test_a_row_is_strict_json() -> None:
    found = effect_of(np.array([-1.0, 0.2, 0.3]), np.array([0, 1, 1]), ["code", "books"])
    row = json.loads(json.dumps(found.row(expert=3), allow_nan=False))
    assert (row["expert"], row["most"], row["drop"]) == (3, "code", -1.0)


def test_the_owner_is_the_domain_with_the_largest_share_at_equal_text() -> None:
    shares = np.array([[0.1, 0.6, 0.3, 0.0], [0.5, 0.4, 0.1, 0.0]])
    assert owners_of(shares).tolist() == [1, 0, 0, -1]


def test_the_owner_by_share_is_the_owner_by_lift() -> None:
    shares = np.random.default_rng(0).dirichlet(np.ones(9), size=(3, 7))
    lift = shares / shares.mean(axis=-2, keepdims=True)
    assert (owners_of(shares) == lift.argmax(axis=-2)).all()


def test_a_domain_without_tokens_owns_nothing() -> None:
    assert owners_of(np.array([[np.nan, np.nan], [0.5, 0.5]])).tolist() == [1, 1]


def test_the_busiest_experts_come_in_order() -> None:
    assert busiest(np.array([[0.1, 0.6, 0.3], [0.5, 0.1, 0.4]])).tolist() == [[1, 2], [0, 2]]


def test_agreement_counts_owners_that_are_hurt_most() -> None:
    effects = [effect(code=-0.2, books=0.0), effect(code=-0.1, books=-0.09), effect(code=0.0, books=-0.3)]
    assert agreement(["code", "books", None], effects) == {"hits": 1, "n": 2, "clear_hits": 1, "clear": 1}


def test_rank_correlation_is_one_when_harm_follows_shares() -> None:
    shares = np.array([[0.5, 0.1], [0.2, 0.3]])
    effects = [effect(code=-0.5, books=-0.1), effect(code=-0.2, books=-0.3)]
    assert rank_correlation(shares, effects) == pytest.approx(1.0)
    assert math.isnan(rank_correlation(np.ones((2, 2)), effects))


def test_the_least_harm_is_bounded_below_singly_and_above_by_bonferroni() -> None:
    """Harms 0.1 and 0.3, errors 0.01: below z(0.95) = 1.645, above z(0.975) = 1.960 for two ablations."""
    value, (low, high) = least_harm([effect(code=-0.3), effect(code=-0.1)])
    assert value == pytest.approx(0.1)
    assert (low, high) == pytest.approx((0.1 - 0.01645, 0.1 + 0.0196), abs=1e-4)
