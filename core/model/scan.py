"""A linear recurrence over the tokens of a row: many tokens at once, or one after the other.

S_t = diag(exp(lg_t)) S_{t-1} + v_t k_t^T and o_t = S_t q_t, with S of shape (d, r) and S = 0 where a document starts.
In every function: q, k (B, T, r); v, log_decay lg <= 0 (B, T, d); state (B, d, r); all fp32; starts (B or 1, T), bool,
None where no token starts a document.
"""

from __future__ import annotations

import torch
from torch.nn import functional

#: The sum of log_decay over a chunk may not be below it: half of it either way is exp(60) = 1e26, far from the end of
#: fp32 at 3e38 even when multiplied by values and summed.
MOST_DECAY = -120.0


def document_starts(positions: torch.Tensor | None, real: torch.Tensor | None) -> torch.Tensor | None:
    """Where a document starts: at position 0, and where the position is not the one after that of the token before.

    ``positions`` (B or 1, T), ``real`` (B, T), bool, False at padding. Padding starts nothing, and a token right after
    padding starts a document at position 0 only.
    """
    if positions is None:
        return None
    jumps = positions[:, 1:] != positions[:, :-1] + 1
    if real is not None:
        jumps = jumps & real[:, :-1]
    starts = (positions == 0) | functional.pad(jumps, (1, 0))
    return starts if real is None else starts & real


def scan(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    log_decay: torch.Tensor,
    *,
    chunk: int,
    state: torch.Tensor | None = None,
    starts: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """What every token reads, (B, T, d), and the state after the last, computed a chunk of tokens at once.

    With c the sum of lg from the beginning of a chunk of C tokens: O = exp(c) [tril(Q K^T) (V exp(-c)) + Q S_in^T], one
    C x C matrix for all channels, and S_out = exp(c_C) S_in + (V exp(c_C - c))^T K (the chunk form of GLA, Yang 2023,
    2312.06635, and of Mamba-2, Dao & Gu 2024, 2405.21060, with the decay on the value axis). c is taken relative to
    c_C / 2, which halves the exponents. ``log_decay`` must not sum to less than ``MOST_DECAY`` in a chunk.
    """
    tokens = q.shape[1]
    size = min(chunk, tokens)
    missing = -tokens % size
    if missing:
        # A token with k = v = lg = 0 leaves the state as it is.
        q, k, v, log_decay = (functional.pad(part, (0, 0, 0, missing)) for part in (q, k, v, log_decay))
    # shape: (B, N, C, r or d)
    q, k, v, log_decay = (torch.unflatten(part, 1, (-1, size)) for part in (q, k, v, log_decay))
    total = log_decay.cumsum(2)
    centre = total[:, :, -1:].detach() / 2  # shape: (B, N, 1, d)
    grown = v * torch.exp(centre - total)
    scores = q @ k.transpose(-1, -2)  # shape: (B, N, C, C)
    kept = total[:, :, -1]  # shape: (B, N, d)
    rest = torch.exp(kept - centre.squeeze(2))
    decay = torch.exp(kept)
    if starts is None:
        scores = scores.tril()
    else:
        # Never lg = -inf at a start: the differences of c across it would be inf - inf.
        document = functional.pad(starts, (0, missing)).cumsum(1)
        document = torch.unflatten(document, 1, (-1, size))  # shape: (B or 1, N, C)
        last = document[:, :, -1]
        entered = functional.pad(last[:, :-1], (1, 0))  # the document of the token before the chunk
        scores = scores * (document[..., :, None] == document[..., None, :]).tril()
        q = q * (document == entered[..., None])[..., None]
        k = k * (document == last[..., None])[..., None]
        decay = decay * (last == entered)[..., None]
    added = (grown.transpose(-1, -2) @ k) * rest[..., None]  # shape: (B, N, d, r)
    read = scores @ grown
    if state is None and q.shape[1] == 1:
        return _whole(torch.exp(total - centre) * read, tokens), added[:, 0]
    state = torch.zeros_like(added[:, 0]) if state is None else state
    entering = []
    for factor, more in zip(decay[..., None].unbind(1), added.unbind(1), strict=True):
        entering.append(state)
        state = factor * state + more
    before = torch.stack(entering, 1) * torch.exp(centre).transpose(-1, -2)
    read = read + q @ before.transpose(-1, -2)
    return _whole(torch.exp(total - centre) * read, tokens), state


def walk(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    log_decay: torch.Tensor,
    *,
    state: torch.Tensor | None = None,
    starts: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """What every token reads, (B, T, d), and the state after each, (B, T, d, r), computed one token after the other."""
    decay = torch.exp(log_decay)
    if starts is not None:
        decay = decay * ~starts[..., None]
    added = v[..., None] * k[..., None, :]  # shape: (B, T, d, r)
    states = []
    for factor, more in zip(decay[..., None].unbind(1), added.unbind(1), strict=True):
        state = more if state is None else factor * state + more
        states.append(state)
    after = torch.stack(states, 1)
    return (after @ q[..., None]).squeeze(-1), after


def _whole(chunks: torch.Tensor, tokens: int) -> torch.Tensor:
    return chunks.flatten(1, 2)[:, :tokens]  # shape: (B, T, d)
