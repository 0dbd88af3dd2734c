"""Router statistics: pure formulas over counts of chosen experts, and the accumulator the trainer keeps on its device.

Counts have the shape (L, D, E): layers, domains, experts. All entropies are in nats. SPEC 2B.1, 2B.2.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from ...evals.routing import gini
from .routing import RoutedTokens

Array = NDArray[np.float64]


def load_share(counts: ArrayLike) -> Array:
    """Share of token slots that each expert got, shape (L, E), from counts (L, D, E); NaN where nothing was routed."""
    total = _array(counts).sum(1)
    return _divide(total, total.sum(-1, keepdims=True))


def entropy(share: ArrayLike) -> Array:
    """Entropy in nats over the last axis: 0 for one expert, ln E when uniform; NaN stays NaN."""
    share = _array(share)
    result: Array = -np.sum(share * np.log(np.where(share > 0, share, 1.0)), axis=-1)
    return result


def domain_entropy(counts: ArrayLike) -> Array:
    """Routing entropy of hard load per layer and domain, shape (L, D); NaN for a domain without tokens."""
    array = _array(counts)
    return entropy(_divide(array, array.sum(-1, keepdims=True)))


def mutual_information(counts: ArrayLike) -> Array:
    """I(E; D) = H(sum_D pi_D s_D) - sum_D pi_D H(s_D) per layer, shape (L,); pi_D is the domains' share of slots."""
    array = _array(counts)
    weight = array.sum(-1)  # shape: (L, D)
    weight = _divide(weight, weight.sum(-1, keepdims=True))
    inner = np.where(weight > 0, weight * np.nan_to_num(domain_entropy(array)), 0.0).sum(-1)
    result: Array = entropy(load_share(array)) - inner
    return result


def top_share(counts: ArrayLike, top: int = 2) -> Array:
    """Share of each domain's slots that its ``top`` busiest experts take, shape (L, D)."""
    array = np.sort(_array(counts), axis=-1)
    result: Array = _divide(array[..., -top:].sum(-1), array.sum(-1))
    return result


def dead_experts(counts: ArrayLike, threshold: float = 0.01) -> int:
    """How many (layer, expert) pairs get less than ``threshold`` of the uniform share."""
    load = load_share(counts)
    return int((load < threshold / load.shape[-1]).sum())


def _array(values: ArrayLike) -> Array:
    if isinstance(values, torch.Tensor):
        values = values.detach().cpu().numpy()
    return np.asarray(values, dtype=np.float64)


def _divide(values: Array, total: Array) -> Array:
    result: Array = np.divide(values, total, out=np.full(np.broadcast(values, total).shape, np.nan), where=total > 0)
    return result


class RouterStatistics:
    """Counts, probability sums and per-token entropies since the last log, on the device, without a synchronisation.

    ``take`` gives them as one flat vector, so that the trainer moves everything to the host at once, and starts anew;
    ``summary`` turns the host's copy into what is logged and ``last_counts`` keeps its counts.
    """

    def __init__(self, domains: Sequence[str]) -> None:
        self.domains = tuple(domains)
        self.last_counts: Array | None = None  # shape: (L, D + 1, E), the last slot for unknown domains
        self._sums: tuple[torch.Tensor, torch.Tensor] | None = None

    @torch.no_grad()
    def add(self, routing: RoutedTokens) -> None:
        """Count one micro-batch."""
        per_token = torch.special.entr(routing.probabilities.detach()).sum(-1)  # shape: (L, N)
        entropies = per_token @ routing.valid  # shape: (L,)
        if self._sums is None:
            self._sums = (routing.counts.clone(), entropies)
        else:
            self._sums[0].add_(routing.counts)
            self._sums[1].add_(entropies)

    def take(self) -> torch.Tensor | None:
        """Everything since the last call as one vector, or None if nothing was counted."""
        if self._sums is None:
            return None
        vector = torch.cat([part.flatten() for part in self._sums])
        self._shape = self._sums[0].shape
        self._sums = None
        return vector

    def summary(self, vector: Array, top_k: int) -> Mapping[str, float]:
        """What is logged of a vector from ``take`` that was summed over processes; ``top_k`` experts per token."""
        size = int(np.prod(self._shape))
        counts = np.asarray(vector[:size], dtype=np.float64).reshape(self._shape)[:, :-1]
        self.last_counts = counts
        known = counts[:, :-1]
        load = load_share(counts)
        tokens = counts.sum() / top_k
        logs: dict[str, Any] = {
            "router/load_min": load.min(),
            "router/load_max": load.max(),
            "router/dead": dead_experts(counts),
            "router/gini": gini(load).mean(),
            "router/token_entropy": vector[size:].sum() / max(1.0, tokens),
        }
        present = known.sum((0, 2)) > 0
        if present.any():
            per_domain = domain_entropy(known).mean(0)
            logs |= {f"router/entropy/{self.domains[d]}": per_domain[d] for d in np.flatnonzero(present)}
            logs["router/mutual_information"] = mutual_information(known).mean()
            logs["router/top2_share"] = top_share(known)[:, present].mean()
        return {key: float(value) for key, value in logs.items()}
