"""Formulas over counts, against numbers worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from phasegate.core.training.statistics import (
    dead_experts,
    domain_entropy,
    entropy,
    load_share,
    mutual_information,
    top_share,
)

# One layer, two domains, four experts: domain 0 uses experts 0 and 1 evenly, domain 1 only expert 2.
COUNTS = np.array([[[4, 4, 0, 0], [0, 0, 8, 0]]], dtype=float)


def test_load_share_adds_up_over_domains() -> None:
    np.testing.assert_allclose(load_share(COUNTS), [[0.25, 0.25, 0.5, 0.0]])


def test_entropy_of_a_uniform_share_is_the_logarithm_of_the_experts() -> None:
    assert entropy(np.full(9, 1 / 9)) == pytest.approx(2.1972, abs=1e-4)  # the paper's "2.2" is in nats


def test_routing_entropy_is_per_domain_and_in_nats() -> None:
    np.testing.assert_allclose(domain_entropy(COUNTS), [[math.log(2), 0.0]])


def test_the_entropy_of_a_domain_without_tokens_is_not_a_number() -> None:
    counts = np.array([[[1, 1], [0, 0]]], dtype=float)
    assert np.isnan(domain_entropy(counts)[0, 1])


def test_mutual_information_is_what_the_domain_tells_about_the_expert() -> None:
    # H(E) = 1.5 ln 2, H(E|D) = 0.5 ln 2.
    np.testing.assert_allclose(mutual_information(COUNTS), [math.log(2)])


def test_mutual_information_is_nothing_when_all_domains_route_alike() -> None:
    counts = np.array([[[3, 1], [6, 2], [0, 0]]], dtype=float)
    np.testing.assert_allclose(mutual_information(counts), [0.0], atol=1e-12)


def test_top_share_is_what_the_two_busiest_experts_take() -> None:
    counts = np.array([[[5, 3, 1, 1]]], dtype=float)
    np.testing.assert_allclose(top_share(counts, 2), [[0.8]])


def test_an_expert_below_a_hundredth_of_uniform_is_dead() -> None:
    counts = np.array([[[1000, 1000, 4, 0]]], dtype=float)
    assert dead_experts(counts) == 2


def test_tensors_are_taken_as_well_as_arrays() -> None:
    np.testing.assert_allclose(load_share(torch.tensor(COUNTS)), load_share(COUNTS))
