"""Final hidden states of token rows: what a safety anchor looks at."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch

Tokens = Sequence[int]


def final_states(model: Any, rows: Sequence[Tokens], batch: int) -> torch.Tensor:
    """The final hidden state (after the last norm) at the last token of every row, shape (N, d), with gradient where
    it is enabled.

    ``batch`` rows of like length run together: the last bits depend on who runs with whom, so a result that must be
    found again needs the same rows in the same order and the same number.
    """
    found: list[torch.Tensor] = [torch.empty(0)] * len(rows)
    for places, states, mask in _batches(model, rows, batch):
        for number, last, state in zip(places, (mask.sum(1) - 1).tolist(), states, strict=True):
            found[number] = state[last]
    return torch.stack(found)


def answer_states(
    model: Any, rows: Sequence[Tokens], starts: Sequence[int], batch: int
) -> Iterator[tuple[list[int], torch.Tensor, torch.Tensor]]:
    """Batches of rows of like length: which rows, their final hidden states, and a mask of the tokens from ``starts``
    on; shapes (B, T, d) and (B, T), bool."""
    for places, states, mask in _batches(model, rows, batch):
        begin = torch.tensor([starts[place] for place in places], device=mask.device)
        yield places, states, mask & (torch.arange(mask.shape[1], device=mask.device) >= begin[:, None])


def _batches(model: Any, rows: Sequence[Tokens], batch: int) -> Iterator[tuple[list[int], torch.Tensor, torch.Tensor]]:
    """Hidden states (B, T, d) and masks (B, T), bool, of rows padded on the right, where no token sees padding."""
    device = next(model.parameters()).device
    decoder = model.get_decoder()
    order = sorted(range(len(rows)), key=lambda place: len(rows[place]))
    for start in range(0, len(rows), batch):
        places = order[start : start + batch]
        longest = max(len(rows[place]) for place in places)
        ids = [[*rows[place], *[0] * (longest - len(rows[place]))] for place in places]
        lengths = torch.tensor([len(rows[place]) for place in places], device=device)
        mask = torch.arange(longest, device=device) < lengths[:, None]
        states = decoder(input_ids=torch.tensor(ids, device=device), attention_mask=mask.long(), use_cache=False)
        yield places, states.last_hidden_state, mask
