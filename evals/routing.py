"""Formulas over routing counts: load, entropy, mutual information, top shares, inequality and dead experts.

Counts have the shape ``(…, layers, domains, experts)`` and hold routed token slots (a token of a top-k router fills
k slots), so everything here is *hard* load. Leading dimensions (bootstrap replicates) are carried through.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def domain_shares(counts: NDArray[Any]) -> Array:
    """Share of each domain's slots that each expert gets; NaN for a domain without tokens.

    shape: (…, L, D, E) -> (…, L, D, E)
    """
    totals = counts.sum(axis=-1, keepdims=True).astype(np.float64)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(counts / totals, dtype=np.float64)


def load_shares(shares: Array, weights: Array | None = None) -> Array:
    """Load share of each expert under a mixture of domains (equal weights where none are given).

    shape: (…, L, D, E), (D,) -> (…, L, E); 1/E is uniform. Domains without tokens count for nothing.
    """
    mixture = _mixture(shares, weights)
    return np.asarray((np.nan_to_num(shares) * mixture[..., None]).sum(axis=-2), dtype=np.float64)


def entropy(shares: Array) -> Array:
    """Entropy of shares over experts in nats; ln(E) is uniform.

    shape: (…, E) -> (…)
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        terms = np.where(shares > 0, shares * np.log(np.where(shares > 0, shares, 1.0)), 0.0)
    return np.asarray(np.where(np.isnan(shares).any(axis=-1), np.nan, -terms.sum(axis=-1)), dtype=np.float64)


def mutual_information(shares: Array, weights: Array | None = None) -> Array:
    """I(expert; domain) = H(sum of pi_D s_D) - sum of pi_D H_D in nats; 0 where domains share their experts.

    shape: (…, L, D, E), (D,) -> (…, L)
    """
    mixture = _mixture(shares, weights)
    mixed = entropy(load_shares(shares, weights))
    within = (np.nan_to_num(entropy(shares)) * mixture).sum(axis=-1)
    return np.asarray(mixed - within, dtype=np.float64)


def top_share(shares: Array, k: int = 2) -> Array:
    """Share of slots that the k busiest experts get.

    shape: (…, E) -> (…)
    """
    return np.asarray(np.sort(shares, axis=-1)[..., -k:].sum(axis=-1), dtype=np.float64)


def gini(shares: Array) -> Array:
    """Gini coefficient sum_ij |s_i - s_j| / (2 E sum_i s_i) of shares over experts (Gini 1912): 0 is uniform, and
    1 - 1/E is everything to one expert.

    shape: (…, E) -> (…)
    """
    rising = np.sort(shares, axis=-1)
    experts = shares.shape[-1]
    ranks = np.arange(1, experts + 1)
    with np.errstate(invalid="ignore", divide="ignore"):
        skew = (rising * (2 * ranks - experts - 1)).sum(axis=-1) / (experts * rising.sum(axis=-1))
    return np.asarray(skew, dtype=np.float64)


def dead_experts(load: Array, below: float = 0.01) -> NDArray[np.int64]:
    """Experts, over all layers, that get less than ``below`` of what uniform routing would give them.

    shape: (…, L, E) -> (…)
    """
    return np.asarray((load < below / load.shape[-1]).sum(axis=(-2, -1)), dtype=np.int64)


def _mixture(shares: Array, weights: Array | None) -> Array:
    """Domain weights that sum to one over the domains that have tokens. shape: (…, L, D)"""
    seen = ~np.isnan(shares).any(axis=-1)
    given = np.ones(shares.shape[-2]) if weights is None else np.asarray(weights, dtype=np.float64)
    mixture = np.where(seen, given, 0.0)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(mixture / mixture.sum(axis=-1, keepdims=True), dtype=np.float64)
