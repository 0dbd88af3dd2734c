"""Where the routers of a model send consecutive tokens of a document: how far the text moves between experts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.utils.rnn import pad_sequence

from ..registry.errors import DataError
from .recording import Routers
from .undisturbed import undisturbed

#: Classes of a step by the fewest edges between its two experts; the last is three and more.
CLASSES = ("same", "one_hop", "two_hop", "far")

Distance = Callable[[Any, torch.Tensor], torch.Tensor]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Transitions:
    """Steps from each token of a document to the next, of D documents and L router layers, and what experts got.

    ``lengths`` sums the distances between the tokens' places, where routers have any.
    """

    steps: NDArray[np.int64]  # shape: (D, L, 4), by class
    lengths: NDArray[np.float64]  # shape: (D, L)
    tokens: tuple[NDArray[np.int64], ...]  # shape: L × (E,), slots


def hops_between(edges: NDArray[np.int64], experts: int) -> NDArray[np.int64]:
    """Fewest edges between any two experts, shape (M, 2) -> (E, E); a path that does not exist counts as 3."""
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import shortest_path

    graph = coo_matrix((np.ones(len(edges)), (edges[:, 0], edges[:, 1])), shape=(experts, experts))
    found = shortest_path(graph, directed=False, unweighted=True)
    return np.asarray(np.minimum(found, len(CLASSES) - 1), dtype=np.int64)


def count_transitions(
    model: Any,
    routers: Routers,
    documents: Sequence[Sequence[int]],
    hops: Sequence[NDArray[np.int64]],
    *,
    prefix: int | None,
    batch_size: int,
    distance: Distance | None = None,
) -> Transitions:
    """Follow every document through the experts that its tokens choose first, with the model in eval mode.

    ``hops`` gives the classes of steps of each router, shape (E, E); ``distance`` maps a router and hidden states
    (B, T, H) to how far each token is from the next, (B, T - 1). ``documents`` are token ids, and ``prefix`` is read
    before each and does not count. Read by forward hooks on the routers.
    """
    if not routers:
        raise DataError("this model has no routers, so there is no routing to measure: leave the gate out.")
    if not documents:
        raise DataError("there is no text to measure routing on: check the held-out split of this experiment.")
    captured: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}
    handles = [module.register_forward_hook(_keeper(captured, slot)) for slot, (_, _, module) in enumerate(routers)]
    order = sorted(range(len(documents)), key=lambda i: -len(documents[i]))
    steps = np.zeros((len(documents), len(routers), len(CLASSES)), dtype=np.int64)
    lengths = np.zeros(steps.shape[:2])
    tokens = [np.zeros(len(table), dtype=np.int64) for table in hops]
    try:
        with undisturbed(model), torch.inference_mode():
            for start in range(0, len(order), batch_size):
                chosen = order[start : start + batch_size]
                ids, mask = _padded([documents[i] for i in chosen], prefix)
                captured.clear()
                model.base_model(input_ids=ids.to(model.device), use_cache=False)
                if len(captured) != len(routers):
                    raise DataError("some routers of this model saw no token: remove the layers that are not used.")
                pairs = (mask[:, :-1] & mask[:, 1:]).numpy()
                for slot, (_, _, module) in enumerate(routers):
                    index, hidden = captured[slot]
                    experts = index.reshape(*ids.shape, -1).cpu().numpy()  # shape: (B, T, k)
                    tokens[slot] += np.bincount(experts[mask.numpy()].ravel(), minlength=len(tokens[slot]))
                    classes = hops[slot][experts[:, :-1, 0], experts[:, 1:, 0]]  # shape: (B, T - 1)
                    steps[chosen, slot] = ((classes[..., None] == np.arange(len(CLASSES))) & pairs[..., None]).sum(1)
                    if distance is not None:
                        apart = distance(module, hidden.reshape(*ids.shape, -1)).double().cpu().numpy()
                        lengths[chosen, slot] = np.where(pairs, apart, 0.0).sum(1)
    finally:
        for handle in handles:
            handle.remove()
    return Transitions(steps=steps, lengths=lengths, tokens=tuple(tokens))


def _padded(documents: Sequence[Sequence[int]], prefix: int | None) -> tuple[torch.Tensor, torch.Tensor]:
    """Right padding: causal attention keeps it from every token that counts. shape: (B, T) ids and bool mask"""
    front = [] if prefix is None else [prefix]
    ids = pad_sequence([torch.tensor([*front, *tokens]) for tokens in documents], batch_first=True)
    mask = pad_sequence([torch.ones(len(front) + len(tokens)) for tokens in documents], batch_first=True).bool()
    mask[:, : len(front)] = False
    return ids, mask


def _keeper(captured: dict[int, tuple[torch.Tensor, torch.Tensor]], slot: int) -> Callable[[Any, Any, Any], None]:
    def keep(_module: Any, inputs: Any, output: Any) -> None:
        captured[slot] = output[2].detach(), inputs[0].detach()

    return keep
