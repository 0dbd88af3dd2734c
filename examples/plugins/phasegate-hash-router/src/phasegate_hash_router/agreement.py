"""The formulas of the gate, over whole numbers that a hand can count."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def evenness(load: NDArray[np.int64]) -> NDArray[np.float64]:
    """exp(H) / E of the load of each layer, H its entropy in nats, averaged over layers: 1 where it is uniform.

    shape: (..., L, E) -> (...)
    """
    shares = load / load.sum(axis=-1, keepdims=True)
    entropy = -(shares * np.log(np.where(shares > 0, shares, 1.0))).sum(axis=-1)
    return np.asarray((np.exp(entropy) / load.shape[-1]).mean(axis=-1), dtype=np.float64)


def agreements(
    documents: Sequence[Sequence[int]], choices: Sequence[NDArray[np.int64]], experts: int, least: int
) -> NDArray[np.float64]:
    """For each document the share of its tokens that go where other documents send the same token most often, averaged
    over layers; experts that others choose equally often share the point.

    Only tokens count of which other documents have at least ``least`` occurrences; NaN for a document without any.
    shape: (T,) token ids and (L, T) experts of every document -> (documents,)
    """
    owner = np.repeat(np.arange(len(documents)), [len(ids) for ids in documents])  # shape: (N,)
    _, token = np.unique(np.concatenate([np.asarray(ids, dtype=np.int64) for ids in documents]), return_inverse=True)
    _, pair = np.unique(owner * (int(token.max()) + 1) + token, return_inverse=True)
    elsewhere = np.bincount(token)[token] - np.bincount(pair)[pair]
    counted = elsewhere >= least
    hits = np.zeros(len(owner))
    layers = np.concatenate(choices, axis=1)  # shape: (L, N)
    for chosen in layers:
        everywhere = np.bincount(token * experts + chosen, minlength=(int(token.max()) + 1) * experts)
        here = np.bincount(pair * experts + chosen, minlength=(int(pair.max()) + 1) * experts)
        others = everywhere.reshape(-1, experts)[token] - here.reshape(-1, experts)[pair]  # shape: (N, E)
        usual = others == others.max(axis=-1, keepdims=True)
        hits += usual[np.arange(len(chosen)), chosen] / usual.sum(axis=-1)
    shares = np.where(counted, hits / len(layers), 0.0)
    with np.errstate(invalid="ignore"):
        return np.asarray(
            np.bincount(owner, weights=shares, minlength=len(documents))
            / np.bincount(owner, weights=counted, minlength=len(documents)),
            dtype=np.float64,
        )
