"""Counting where a model's routers send the tokens of documents."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ..registry.errors import DataError
from .undisturbed import undisturbed

Routers = Sequence[tuple[str, int, Any]]


def count_routes(
    model: Any, routers: Routers, documents: Sequence[Sequence[int]], *, prefix: int | None, batch_size: int
) -> NDArray[np.int64]:
    """Token slots that each expert of each router layer gets from each document, with the model in eval mode.

    ``documents`` are token ids, ``prefix`` a token put before each that is seen but not counted. Read by forward
    hooks from the routers' ``(logits, weights, index)``, so head, cache and loss play no part.
    shape: documents × (T,) -> (documents, layers, experts)
    """
    if not routers:
        raise DataError("this model has no routers, so there is no routing to measure: leave the routing gate out.")
    captured: dict[int, torch.Tensor] = {}
    handles = [module.register_forward_hook(_keeper(captured, slot)) for slot, (_, _, module) in enumerate(routers)]
    order = sorted(range(len(documents)), key=lambda i: -len(documents[i]))
    counts: NDArray[np.int64] | None = None
    trunk = model.base_model
    try:
        with undisturbed(model), torch.inference_mode():
            for start in range(0, len(order), batch_size):
                chosen = order[start : start + batch_size]
                ids, mask = _pad([documents[i] for i in chosen], prefix)
                captured.clear()
                trunk(input_ids=ids.to(model.device), use_cache=False)
                batch = _count(captured, mask, [int(module.num_experts) for _, _, module in routers])
                if counts is None:
                    counts = np.zeros((len(documents), *batch.shape[1:]), dtype=np.int64)
                counts[chosen] = batch
    finally:
        for handle in handles:
            handle.remove()
    if counts is None:
        raise DataError("there is no text to measure routing on: check the held-out split of this experiment.")
    return counts


def _keeper(captured: dict[int, torch.Tensor], slot: int) -> Callable[[Any, Any, Any], None]:
    def keep(_module: Any, _inputs: Any, output: Any) -> None:
        captured[slot] = output[2].detach()

    return keep


def _pad(documents: Sequence[Sequence[int]], prefix: int | None) -> tuple[torch.Tensor, torch.Tensor]:
    """Right padding: causal attention keeps it from every counted token. shape: (B, T) ids and bool mask"""
    front = [] if prefix is None else [prefix]
    longest = max(map(len, documents)) + len(front)
    ids = torch.zeros(len(documents), longest, dtype=torch.long)
    mask = torch.zeros(len(documents), longest, dtype=torch.bool)
    for row, tokens in enumerate(documents):
        ids[row, : len(front) + len(tokens)] = torch.tensor([*front, *tokens], dtype=torch.long)
        mask[row, len(front) : len(front) + len(tokens)] = True
    return ids, mask


def _count(captured: dict[int, torch.Tensor], mask: torch.Tensor, experts: Sequence[int]) -> NDArray[np.int64]:
    """shape: layers × (B*T, k) indices, (B, T) -> (B, layers, experts)"""
    if len(captured) != len(experts):
        raise DataError("some routers of this model saw no token: freeze or remove the layers that are not used.")
    if len(set(experts)) != 1:
        raise DataError(
            "the router layers of this model have different numbers of experts: routing cannot be compared."
        )
    rows, length = mask.shape
    layers = []
    for slot in range(len(experts)):
        index = captured[slot].reshape(rows, length, -1).cpu()
        hot = torch.zeros(rows, experts[slot], dtype=torch.long)
        slots = mask.unsqueeze(-1).expand_as(index)
        hot.scatter_add_(1, index.reshape(rows, -1), slots.reshape(rows, -1).long())
        layers.append(hot)
    return np.asarray(torch.stack(layers, dim=1).numpy(), dtype=np.int64)
