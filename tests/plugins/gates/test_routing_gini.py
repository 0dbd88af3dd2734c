"""The inequality of the load."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from phasegate.evals.routing import gini
from phasegate.plugins.gates.routing import RoutingConfig, RoutingGate


@pytest.mark.parametrize(
    ("shares", "expected"),
    [
        ([0.25, 0.25, 0.25, 0.25], 0.0),
        ([0.0, 0.0, 1.0, 0.0], 0.75),  # 1 - 1/4
        ([0.5, 0.5, 0.0, 0.0], 0.5),
        ([1.0, 2.0, 3.0], 2 / 9),  # sum |x_i - x_j| = 8, 2 * 3 * 6 = 36
    ],
)
def test_it_is_the_mean_difference_over_twice_the_mean(shares: list[float], expected: float) -> None:
    assert gini(np.array(shares)) == pytest.approx(expected)


def test_leading_dimensions_are_carried_through() -> None:
    assert gini(np.array([[[1.0, 1.0], [1.0, 0.0]]])).tolist() == [[0.0, 0.5]]


def test_uniform_routing_of_finite_text_looks_as_unequal_as_noise_makes_it() -> None:
    """SPEC 2A.9: a uniform multinomial of 10,000 tokens over 128 experts gives 0.064."""
    counts = np.random.default_rng(0).multinomial(10_000, np.full(128, 1 / 128), size=20)
    assert gini(counts.astype(float)).mean() == pytest.approx(0.064, abs=0.002)


def test_experts_without_any_load_have_no_gini() -> None:
    assert np.isnan(gini(np.zeros(4)))


def test_the_gate_gives_the_mean_and_the_worst_layer(context: Any) -> None:
    words = ["the cat sat on a red mat", "one small fish ate the town", "it rained over the old sea by the town"]
    texts = [{"text": f"{words[i % 3]} {i}", "domain": "general" if i % 2 else "code"} for i in range(12)]
    ctx = context({"text": texts}, domains=("code", "general"))
    found = RoutingGate(RoutingConfig()).measure(ctx)
    load = np.array(found["entropy_mean"].evidence["load"])  # shape: (L, E)
    by_layer = [sum(abs(a - b) for a in row for b in row) / (2 * len(row) * row.sum()) for row in load]
    assert found["gini"].value == pytest.approx(np.mean(by_layer), abs=1e-5)
    assert found["gini_max"].value == pytest.approx(max(by_layer), abs=1e-5)
    assert found["gini"].interval is not None
