from __future__ import annotations

import math

import pytest
import torch
from phasegate.plugins.routers.geometry import (
    distance,
    faces,
    hops,
    into_cell,
    lattice,
    sites_of,
    wrap,
)
from phasegate.plugins.routers.grids import check_grid, grid_of
from phasegate.registry.errors import ConfigError


@pytest.mark.parametrize(
    ("experts", "grid"),
    [
        (1, (1, 1, 1)),
        (2, (2, 1, 1)),
        (7, (7, 1, 1)),
        (8, (2, 2, 2)),
        (9, (3, 3, 1)),
        (12, (3, 2, 2)),
        (16, (4, 2, 2)),
        (64, (4, 4, 4)),
        (128, (8, 4, 4)),
    ],
)
def test_any_number_of_experts_has_a_most_cubic_grid(experts: int, grid: tuple[int, int, int]) -> None:
    assert grid_of(experts) == grid


def test_doubling_the_experts_doubles_one_side_of_their_grid() -> None:
    for small, large in ((8, 16), (16, 32), (32, 64), (64, 128)):
        ratios = sorted(m / s for m, s in zip(grid_of(large), grid_of(small), strict=True))
        assert ratios == [1, 1, 2]


@pytest.mark.parametrize("grid", [(4, 4, 2), (-4, -2, 2), (16, 1, 0)])
def test_a_grid_that_does_not_fit_is_refused_with_one_that_does(grid: tuple[int, int, int]) -> None:
    with pytest.raises(ConfigError, match=r"16 experts; use \[4, 2, 2\]"):
        check_grid(grid, 16)


def test_a_grid_may_have_its_sides_in_any_order() -> None:
    check_grid((2, 4, 2), 16)


def test_the_lattice_has_the_centres_of_equal_cells() -> None:
    centres = lattice((4, 2, 1))
    assert centres.dtype == torch.float32
    assert centres.tolist() == [
        [0.125, 0.25, 0.5],
        [0.125, 0.75, 0.5],
        [0.375, 0.25, 0.5],
        [0.375, 0.75, 0.5],
        [0.625, 0.25, 0.5],
        [0.625, 0.75, 0.5],
        [0.875, 0.25, 0.5],
        [0.875, 0.75, 0.5],
    ]


def test_a_step_across_the_seam_is_as_short_as_it_looks() -> None:
    here, there = torch.tensor([0.99, 0.5, 0.5]), torch.tensor([0.01, 0.5, 0.5])
    assert distance(here, there).item() == pytest.approx(0.02, abs=1e-6)
    assert wrap(there - here).tolist() == pytest.approx([0.02, 0.0, 0.0], abs=1e-6)


def test_distance_takes_the_shorter_way_around_every_axis() -> None:
    # min(|d|, 1 - |d|) = 0.2, 0.1, 0.2
    found = distance(torch.tensor([0.1, 0.2, 0.9]), torch.tensor([0.9, 0.3, 0.1]))
    assert found.item() == pytest.approx(0.3, abs=1e-6)


def test_no_two_points_are_farther_apart_than_the_diagonal_of_half_a_cube() -> None:
    points = torch.rand(200, 3, generator=torch.Generator().manual_seed(0))
    assert distance(points[:, None], points[None]).max() <= math.sqrt(3) / 2
    assert distance(torch.zeros(3), torch.full((3,), 0.5)).item() == pytest.approx(math.sqrt(3) / 2)


def test_the_distance_of_equal_points_has_a_finite_gradient() -> None:
    points = torch.full((2, 3), 0.3, requires_grad=True)
    distance(points[0], points[1]).backward()
    assert points.grad is not None
    assert points.grad.tolist() == [[0.0] * 3] * 2


def test_every_number_lands_inside_the_cell_with_its_gradient() -> None:
    points = torch.tensor([1.25, -0.25, 0.0, 1.0, -1e-9], requires_grad=True)
    inside = into_cell(points)
    assert inside.tolist() == [0.25, 0.75, 0.0, 0.0, 0.0]
    inside.sum().backward()
    assert points.grad is not None
    assert points.grad.tolist() == [1.0] * 5


@pytest.mark.parametrize(
    ("grid", "edges"),
    [
        ((8, 4, 4), 384),  # 3 for each of 128
        ((4, 4, 4), 192),
        ((2, 2, 2), 12),  # a cube
        ((4, 2, 2), 32),  # 16 around the long axis, 8 along each of the others
        ((3, 1, 1), 3),  # a triangle
        ((2, 1, 1), 1),
        ((1, 1, 1), 0),
    ],
)
def test_faces_are_counted_once(grid: tuple[int, int, int], edges: int) -> None:
    found = faces(grid)
    assert found.shape == (edges, 2)
    assert found.dtype == torch.int64
    assert bool((found[:, 0] < found[:, 1]).all())
    assert len({tuple(pair) for pair in found.tolist()}) == edges


def test_every_site_of_a_large_grid_has_six_neighbours_one_cell_away() -> None:
    grid = (8, 4, 4)
    pairs = faces(grid)
    assert torch.bincount(pairs.flatten()).tolist() == [6] * 128
    steps = wrap((sites_of(grid)[pairs[:, 0]] - sites_of(grid)[pairs[:, 1]]) / torch.tensor(grid)) * torch.tensor(grid)
    assert steps.abs().sum(-1).tolist() == [1.0] * 384


def test_hops_go_around_the_shorter_way() -> None:
    far = hops((8, 4, 1))
    # site = 4 i + j
    assert far[0, 4 * 7].item() == 1  # i: 0 to 7
    assert far[0, 4 * 4 + 2].item() == 6  # four along the first axis, two along the second
    assert far[0, 4 * 5 + 3].item() == 4
    assert torch.equal(far, far.T)
    assert far.diagonal().sum().item() == 0
