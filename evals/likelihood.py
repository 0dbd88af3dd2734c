"""Log-likelihood of documents under a model in memory, for measurements that ask for it many times over."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ..registry.errors import DataError
from .undisturbed import undisturbed

_LOGITS = 2**26  # of one batch: 256 MiB in fp32


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Batch:
    """Documents of about one length: what a model reads, what it should say next, and whose that is."""

    ids: torch.Tensor  # shape: (B, T)
    targets: torch.Tensor  # shape: (B, T); -100 behind the end
    places: NDArray[np.int64]  # shape: (B,); the documents' numbers


def batches_of(
    documents: Sequence[Sequence[int]], *, prefix: int, batch_size: int, vocab_size: int
) -> tuple[Batch, ...]:
    """Token ids as batches of at most ``batch_size`` documents, sorted by length and padded on the right, where causal
    attention keeps padding from every scored token. ``prefix`` is read before each document and not scored.

    ``DataError`` where a document is empty or there is none.
    """
    if not documents or not all(map(len, documents)):
        raise DataError("there is no text to score: check the held-out split of this experiment.")
    order = sorted(range(len(documents)), key=lambda place: (-len(documents[place]), place))
    found = []
    while order:
        longest = len(documents[order[0]])
        rows = max(1, min(batch_size, _LOGITS // (longest * vocab_size)))
        places, order = order[:rows], order[rows:]
        ids = torch.zeros(len(places), longest, dtype=torch.long)
        targets = torch.full((len(places), longest), -100, dtype=torch.long)
        for row, place in enumerate(places):
            tokens = torch.tensor(list(documents[place]), dtype=torch.long)
            ids[row, : len(tokens)] = torch.cat([torch.tensor([prefix]), tokens[:-1]])
            targets[row, : len(tokens)] = tokens
        found.append(Batch(ids=ids, targets=targets, places=np.asarray(places, dtype=np.int64)))
    return tuple(found)


def mean_log_likelihoods(model: Any, batches: Sequence[Batch]) -> NDArray[np.float64]:
    """Mean log-likelihood per token of every document in nats, with the model in evaluation mode.

    shape: batches -> (documents,)
    """
    scores = np.empty(sum(len(batch.places) for batch in batches), dtype=np.float64)
    with undisturbed(model), torch.inference_mode():
        for batch in batches:
            targets = batch.targets.to(model.device)
            logits = model(input_ids=batch.ids.to(model.device), use_cache=False).logits  # shape: (B, T, V)
            # Flat: over a transposed view the same loss takes many times as long on a CPU.
            losses = torch.nn.functional.cross_entropy(
                logits.flatten(0, 1).float(), targets.flatten(), reduction="none"
            )
            means = losses.view_as(targets).double().sum(dim=1) / (targets != -100).sum(dim=1)
            scores[batch.places] = -means.cpu().numpy()
    return scores
