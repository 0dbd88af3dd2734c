"""Lattices of experts on the 3-torus: how many cells along each axis. No torch here, so that a plan can check them."""

from __future__ import annotations

from ...registry.errors import ConfigError

Grid = tuple[int, int, int]


def grid_of(experts: int) -> Grid:
    """The most cubic grid a >= b >= c with a * b * c cells for any number of experts >= 1: 8 is (2, 2, 2), 16 is
    (4, 2, 2), 128 is (8, 4, 4), 7 is (7, 1, 1)."""
    grids = [
        (experts // (b * c), b, c)
        for c in range(1, round(experts ** (1 / 3)) + 1)
        for b in range(c, experts // c + 1)
        if experts % (b * c) == 0 and experts // (b * c) >= b
    ]
    return min(grids)  # the shortest longest side, and of those the shortest second


def check_grid(grid: Grid, experts: int) -> None:
    """Raise ``ConfigError`` unless the grid has one cell for every expert."""
    if min(grid) < 1 or grid[0] * grid[1] * grid[2] != experts:
        raise ConfigError(
            f"the grid {list(grid)} of the torus router does not have one cell for each of the {experts} experts; "
            f"use {list(grid_of(experts))}, or leave the grid out."
        ).within("grid")
