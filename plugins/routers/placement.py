"""Which expert sits at which lattice site of the torus: experts that differ little become neighbours.

A placement is ``sites``, shape (E,), int64, a permutation: expert e sits at ``sites[e]``. Distances, shape (E, E),
are symmetric and not negative.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from sklearn.manifold import smacof

from .geometry import distance, faces, lattice
from .grids import Grid

Distances = NDArray[np.floating]
Sites = NDArray[np.int64]

_HEAT = 0.5  # the first temperature of annealing over the mean size of a swap's change
_COOLING = 0.05  # the last temperature over the first
_STEPS = 400  # of Adam on the stress
_RATE = 0.01  # of the torus' circumference


def edge_cost(distances: Distances, sites: Sites, grid: Grid) -> float:
    """The mean distance of experts whose cells share a face; 0 for a single expert, which has no neighbours."""
    edges = np.argsort(sites)[faces(grid).numpy()]  # shape: (M, 2), experts
    return float(distances[edges[:, 0], edges[:, 1]].mean()) if len(edges) else 0.0


def anneal(distances: Distances, grid: Grid, seed: int, swaps: int | None = None) -> Sites:
    """Place experts by simulated annealing (Kirkpatrick 1983) of pairwise swaps, which minimises ``edge_cost``.

    It works on the cost that counts, which an embedding only stands in for (SPEC 2A.8: 0.73 against 0.81). ``swaps`` is
    how many are tried; None means 150 times the square of the number of experts. The temperature falls geometrically,
    over the range where layouts form: hotter is random, and colder only improves locally.
    """
    experts = len(distances)
    if experts < 3:
        return np.arange(experts, dtype=np.int64)  # all placements are mirror images
    rng = np.random.default_rng(seed)
    tried = swaps if swaps is not None else 150 * experts * experts
    # Plain lists: a swap touches at most a dozen numbers, for which array calls cost more than the arithmetic.
    costs: list[list[float]] = np.asarray(distances, dtype=np.float64).tolist()
    beside: list[list[int]] = [[] for _ in range(experts)]
    for one, other in faces(grid).tolist():
        beside[one].append(other)
        beside[other].append(one)
    held: list[int] = rng.permutation(experts).tolist()  # the expert at every site

    def change(first: int, second: int) -> float:
        one, other = costs[held[first]], costs[held[second]]
        total = 0.0
        # Where the two sites are neighbours the edge between them keeps its cost.
        for site in beside[first]:
            if site != second:
                total += other[held[site]] - one[held[site]]
        for site in beside[second]:
            if site != first:
                total += one[held[site]] - other[held[site]]
        return total

    firsts = rng.integers(experts, size=tried)
    seconds = (firsts + rng.integers(1, experts, size=tried)) % experts
    pairs = list(zip(firsts.tolist(), seconds.tolist(), strict=True))
    start = _HEAT * float(np.mean([abs(change(*pair)) for pair in pairs[:200]] or [0.0]))
    bars = (-start * _COOLING ** np.linspace(0, 1, tried) * np.log1p(-rng.random(tried))).tolist()
    for (first, second), bar in zip(pairs, bars, strict=True):
        if change(first, second) <= bar:  # with probability exp(-change / temperature)
            held[first], held[second] = held[second], held[first]
    return np.argsort(np.array(held, dtype=np.int64)).astype(np.int64)


def embed(distances: Distances, grid: Grid, seed: int) -> Sites:
    """Place experts by an embedding whose points then take the nearest sites: metric MDS (SMACOF, de Leeuw 1977) in
    three dimensions, torus stress sum (d_T(z_i, z_j) - c D_ij)^2 by Adam, and the Hungarian algorithm.

    The original divided by the maximum, which leaves 87 % of the experts outside of [0, 1)^3, and kept a margin from
    edges that a torus does not have (SPEC E3.20, E3.21). Here MDS only gives the start, scaled per axis from its
    smallest to its largest coordinate, and distances wrap around. Equal cells come from the assignment.
    """
    experts = len(distances)
    if experts < 3 or not distances.any():
        return np.arange(experts, dtype=np.int64)
    exact = np.asarray(distances, dtype=np.float64)
    exact = (exact + exact.T) / 2  # rounding may differ on the two sides, which SMACOF refuses
    planned, _ = smacof(exact, n_components=3, n_init=1, random_state=seed, normalized_stress=False)
    sides = np.array(grid)
    span = np.ptp(planned, axis=0)
    unit = (planned - planned.min(axis=0)) / np.where(span > 0, span, 1.0)
    # From the centre of the first cell to that of the last; on an axis of one cell, all in its centre.
    points = torch.from_numpy(unit * (1 - 1 / sides) + 0.5 / sides)
    relaxed = _relax(points, torch.from_numpy(exact), torch.from_numpy(sides > 1), grid)
    cost = distance(relaxed[:, None], lattice(grid).to(relaxed)[None])  # shape: (E, E), experts by sites
    return np.asarray(linear_sum_assignment(cost.numpy())[1], dtype=np.int64)


@torch.enable_grad()  # also for a caller that wants no gradients
def _relax(points: torch.Tensor, distances: torch.Tensor, free: torch.Tensor, grid: Grid) -> torch.Tensor:
    """Move points, shape (E, 3), along the ``free`` axes to less torus stress; rows of ``distances`` are the points."""
    rows, columns = torch.triu_indices(len(points), len(points), offset=1)
    target = distances[rows, columns]
    sites = lattice(grid).to(points)
    # c makes the experts as far apart in the mean as the sites they will take. Fitting it together with the points
    # would shrink both to nothing, where the stress is 0.
    mean = distance(sites[rows], sites[columns]).mean()
    target = target * (mean / target.mean().clamp_min(torch.finfo(target.dtype).tiny))
    moved = points.clone().requires_grad_()
    optimizer = torch.optim.Adam([moved], lr=_RATE)
    for step in range(_STEPS):
        optimizer.param_groups[0]["lr"] = _RATE * (1 + math.cos(math.pi * step / _STEPS)) / 2
        stress = (distance(moved[rows], moved[columns]) - target).square().sum()
        (slope,) = torch.autograd.grad(stress, moved)
        moved.grad = slope * free
        optimizer.step()
    return moved.detach()
