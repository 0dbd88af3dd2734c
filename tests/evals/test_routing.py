"""Routing formulas against hand-computed values."""

from __future__ import annotations

import math

import numpy as np
import pytest
from phasegate.evals.routing import (
    dead_experts,
    domain_shares,
    entropy,
    load_shares,
    mutual_information,
    top_share,
)


def test_uniform_routing_over_nine_experts_has_entropy_ln_nine() -> None:
    assert entropy(np.full((1, 9), 1 / 9)) == pytest.approx([math.log(9)])


def test_one_expert_has_no_entropy() -> None:
    assert entropy(np.array([1.0, 0.0, 0.0])) == 0.0


def test_entropy_is_in_nats() -> None:
    assert entropy(np.array([0.5, 0.5, 0.0])) == pytest.approx(math.log(2))


def test_shares_are_taken_within_each_domain() -> None:
    counts = np.array([[[30, 10], [5, 15]]])
    assert domain_shares(counts).tolist() == [[[0.75, 0.25], [0.25, 0.75]]]


def test_load_weighs_domains_equally_unless_told_otherwise() -> None:
    shares = domain_shares(np.array([[[30, 10], [1, 3]]]))
    assert load_shares(shares).tolist() == [[0.5, 0.5]]
    assert load_shares(shares, np.array([3.0, 1.0])).tolist() == [[0.625, 0.375]]


def test_a_domain_without_tokens_counts_for_nothing() -> None:
    shares = domain_shares(np.array([[[30, 10], [0, 0]]]))
    assert load_shares(shares).tolist() == [[0.75, 0.25]]
    assert np.isnan(entropy(shares)[0, 1])


def test_mutual_information_of_owned_experts_is_the_entropy_of_domains() -> None:
    shares = np.array([[[1.0, 0.0], [0.0, 1.0]]])
    assert mutual_information(shares) == pytest.approx([math.log(2)])


def test_mutual_information_of_shared_experts_is_zero() -> None:
    shares = np.array([[[0.2, 0.8], [0.2, 0.8]]])
    assert mutual_information(shares) == pytest.approx([0.0])


def test_mutual_information_by_hand() -> None:
    """Equal domains (0.75, 0.25) and (0.25, 0.75): ln 2 - H(0.75) = 0.6931 - 0.5623."""
    shares = np.array([[[0.75, 0.25], [0.25, 0.75]]])
    assert mutual_information(shares) == pytest.approx([0.130812], abs=1e-6)


def test_the_two_busiest_experts() -> None:
    assert top_share(np.array([0.1, 0.5, 0.3, 0.1])) == pytest.approx(0.8)


def test_an_expert_below_a_hundredth_of_uniform_is_dead() -> None:
    """Uniform over two is 0.5, a hundredth of it 0.005."""
    assert dead_experts(np.array([[0.996, 0.004], [0.5, 0.5]])) == 1


def test_leading_dimensions_are_carried_through() -> None:
    counts = np.ones((5, 3, 2, 4))
    shares = domain_shares(counts)
    assert load_shares(shares).shape == (5, 3, 4)
    assert mutual_information(shares).shape == (5, 3)
    assert dead_experts(load_shares(shares)).shape == (5,)
