from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from phasegate.plugins.routers.geometry import distance, lattice
from phasegate.plugins.routers.placement import anneal, edge_cost, embed

GRID = (4, 4, 4)
PLACERS = pytest.mark.parametrize("place", [anneal, embed])


def world(grid: tuple[int, int, int], noise: float, seed: int = 0) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Experts that differ by how far apart they sit in a hidden placement, and that placement."""
    random = np.random.default_rng(seed)
    sites = lattice(grid)
    far = 0.3 + distance(sites[:, None], sites[None]).double().numpy()
    drawn = np.triu(random.normal(size=far.shape) * noise, 1)
    far = np.maximum(far + drawn + drawn.T, 0.01)
    np.fill_diagonal(far, 0.0)
    truth = random.permutation(len(far))
    return far[np.ix_(truth, truth)], truth


def random_cost(distances: NDArray[np.float64], grid: tuple[int, int, int]) -> float:
    """What a random placement costs on average."""
    return float(distances.sum() / (len(distances) * (len(distances) - 1)))


def test_edge_cost_is_the_mean_over_faces() -> None:
    # Around a ring of four in the order 0, 2, 1, 3: the edges are 02, 21, 13, 30.
    distances = np.array([[0, 9, 1, 4], [9, 0, 2, 3], [1, 2, 0, 9], [4, 3, 9, 0]], dtype=np.float64)
    assert edge_cost(distances, np.array([0, 2, 1, 3]), (4, 1, 1)) == (1 + 2 + 3 + 4) / 4


def test_annealing_beats_the_embedding_and_the_embedding_chance() -> None:
    distances, truth = world(GRID, 0.02)
    best, chance = edge_cost(distances, truth, GRID), random_cost(distances, GRID)
    annealed = edge_cost(distances, anneal(distances, GRID, 0), GRID)
    embedded = edge_cost(distances, embed(distances, GRID, 0), GRID)
    assert annealed < embedded < chance
    assert annealed - best < 0.1 * (chance - best)


def test_annealing_finds_the_hidden_cube() -> None:
    distances, truth = world((2, 2, 2), 0.02)
    found = anneal(distances, (2, 2, 2), 0)
    assert edge_cost(distances, found, (2, 2, 2)) == pytest.approx(edge_cost(distances, truth, (2, 2, 2)))


def test_annealing_finds_a_hidden_ring() -> None:
    ring = np.abs(np.arange(7)[:, None] - np.arange(7)[None]).astype(np.float64)
    ring = np.minimum(ring, 7 - ring)
    shuffled = np.random.default_rng(1).permutation(7)
    distances = ring[np.ix_(shuffled, shuffled)]
    assert edge_cost(distances, anneal(distances, (7, 1, 1), 0), (7, 1, 1)) == 1.0


@PLACERS
@pytest.mark.parametrize("grid", [(1, 1, 1), (2, 1, 1), (3, 1, 1), (2, 2, 2), (4, 2, 2)])
def test_a_placement_is_a_permutation(place: Any, grid: tuple[int, int, int]) -> None:
    distances, truth = world(grid, 0.1)
    sites = place(distances, grid, 3)
    assert sites.dtype == np.int64
    assert sorted(sites.tolist()) == list(range(len(truth)))


@PLACERS
def test_equal_seeds_give_equal_placements(place: Any) -> None:
    distances, _ = world((4, 2, 2), 0.3)
    before = np.random.get_state()[1].copy(), torch.get_rng_state()
    one, other = place(distances, (4, 2, 2), 5), place(distances, (4, 2, 2), 5)
    assert one.tolist() == other.tolist()
    assert np.array_equal(np.random.get_state()[1], before[0])
    assert torch.equal(torch.get_rng_state(), before[1])


@PLACERS
def test_experts_that_do_not_differ_are_placed_somewhere(place: Any) -> None:
    assert sorted(place(np.zeros((8, 8)), (2, 2, 2), 0).tolist()) == list(range(8))


def test_the_number_of_swaps_can_be_chosen() -> None:
    distances, _ = world(GRID, 0.02)
    brief, longer = (edge_cost(distances, anneal(distances, GRID, 0, swaps), GRID) for swaps in (100, 50_000))
    assert longer < brief - 0.05
