"""The flat 3-torus [0, 1)^3 and its lattice: distances that wrap around, cells, faces and hops.

Sites of a grid (a, b, c) are numbered with the last axis fastest: site = (i * b + j) * c + k.
"""

from __future__ import annotations

import torch

from .grids import Grid


def sites_of(grid: Grid) -> torch.Tensor:
    """The cell (i, j, k) of every site, shape (E, 3), int64."""
    return torch.cartesian_prod(*(torch.arange(side) for side in grid))


def lattice(grid: Grid) -> torch.Tensor:
    """The centre ((i + 1/2) / a, (j + 1/2) / b, (k + 1/2) / c) of every cell, shape (E, 3), fp32."""
    return (sites_of(grid) + 0.5) / torch.tensor(grid, dtype=torch.float32)


def into_cell(points: torch.Tensor) -> torch.Tensor:
    """Points modulo 1, every coordinate in [0, 1); the gradient is that of the identity."""
    inside = torch.remainder(points, 1.0)
    return inside - (inside >= 1.0).to(inside.dtype)  # a tiny negative number modulo 1 rounds to 1


def wrap(delta: torch.Tensor) -> torch.Tensor:
    """The shortest way that ends where ``delta`` does, every coordinate in [-1/2, 1/2]."""
    return delta - torch.round(delta)


def distance(points: torch.Tensor, others: torch.Tensor) -> torch.Tensor:
    """Geodesic distance d_T(z, z') = sqrt(sum_a min(|dz_a|, 1 - |dz_a|)^2), shape (..., 3) and (..., 3) -> (...).

    At most sqrt(3)/2. A Euclidean distance would charge 0.98 for the step from 0.99 to 0.01, which is 0.02.
    """
    apart: torch.Tensor = torch.linalg.vector_norm(wrap(points - others), dim=-1)
    return apart


def faces(grid: Grid) -> torch.Tensor:
    """Pairs of sites whose cells share a face, shape (M, 2), int64, sorted, each pair once with the smaller first.

    An axis of side 2 gives one pair where longer ones give two (the neighbours at +1 and at -1 coincide), and an axis
    of side 1 none; an 8 x 4 x 4 grid has 384. The six *nearest* sites are something else: on unequal spacings the
    second neighbour along the finer axis ties with the first along a coarser one, and the relation is not symmetric.
    """
    return (hops(grid) == 1).triu().nonzero()


def hops(grid: Grid) -> torch.Tensor:
    """Fewest steps from face to face between any two sites, shape (E, E), int64."""
    cells = sites_of(grid)
    apart = (cells[:, None] - cells[None]).abs()  # shape: (E, E, 3)
    return torch.minimum(apart, torch.tensor(grid) - apart).sum(-1)
