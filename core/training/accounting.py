"""What one optimiser step holds: its micro-batches' tokens by domain, and its replay batches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch

from .pairs import RowCounts, count_rows
from .routing import StepTokens, tokens_by_domain
from .window import sum_over_processes


class Replay(Protocol):
    """A stream of replayed rows, a pure function of its arguments (so that a resume is exact)."""

    def batch(self, step: int, micro: int, rank: int, world: int) -> Mapping[str, torch.Tensor]:
        """``input_ids``, ``position_ids``, ``attention_mask``, ``labels``, shape (B, T), and ``domain``, shape (B,)."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class MicroBatch:
    """One micro-batch of an optimiser step on this process."""

    tokens: StepTokens
    rows: RowCounts | None  # of the whole optimiser step, where rows have kinds
    replay: Mapping[str, torch.Tensor] | None  # None also where this micro-batch got no row of it
    replay_labels: torch.Tensor | None  # shape: (), supervised replay tokens of the whole optimiser step


def account(
    batches: Sequence[Mapping[str, Any]],
    replays: Sequence[Mapping[str, torch.Tensor]],
    domains: int,
    *,
    replayed_only: bool = False,
    kinds: int = 0,
) -> list[MicroBatch]:
    """Count valid tokens by domain per micro-batch and over the whole optimiser step and all processes.

    ``batches`` are this process's task batches, ``replays`` the replay batches beside them, some of which may have no
    rows (or no batch at all); with ``replayed_only`` the task's tokens do not count. Where rows have one of ``kinds``
    kinds, rows are counted by kind as well. One small all-reduce per optimiser step; nothing is read back to the host.
    """
    own = [_count(batch, domains) * (0 if replayed_only else 1) for batch in batches]
    labels = torch.zeros((), device=own[0].device)
    for number, replay in enumerate(replays):
        if len(replay["input_ids"]):
            own[number] = own[number] + _count(replay, domains)
            labels = labels + (replay["labels"][:, 1:] != -100).sum()
    counted = [torch.stack(own).sum(0), labels[None]]
    if kinds:
        counted.append(torch.stack([count_rows(batch, kinds) for batch in batches]).sum(0).flatten())
    total = sum_over_processes(torch.cat(counted))
    step, labelled, by_kind = total[: domains + 1], total[domains + 1], total[domains + 2 :].view(2, kinds)
    rows = RowCounts(rows=by_kind[0], paired=by_kind[1]) if kinds else None
    return [
        MicroBatch(
            tokens=StepTokens(own=count, step=step),
            rows=rows,
            replay=replays[number] if replays and len(replays[number]["input_ids"]) else None,
            replay_labels=labelled if replays else None,
        )
        for number, count in enumerate(own)
    ]


def row_domains(batch: Mapping[str, Any]) -> torch.Tensor:
    """The domain of every row of ``input_ids``, shape (B,); preference batches hold chosen and rejected rows of each
    pair one after the other; rows without a domain are -1."""
    rows = batch["input_ids"].shape[0]
    domain = batch.get("domain")
    if domain is None:
        return torch.full((rows,), -1, dtype=torch.int64, device=batch["input_ids"].device)
    result: torch.Tensor = domain.repeat(rows // domain.shape[0])
    return result


def following(batch: Mapping[str, Any]) -> torch.Tensor:
    """Whether each token continues the text of the one before it in its row, shape (B * T,), bool: not at the beginning
    of a row or of a packed document (``position_ids`` begin anew), and not at padding."""
    ids, positions, mask = batch["input_ids"], batch.get("position_ids"), batch.get("attention_mask")
    follows = torch.ones(ids.shape, dtype=torch.bool, device=ids.device)
    follows[:, 0] = False
    if positions is not None:
        follows[:, 1:] &= positions[:, 1:] == positions[:, :-1] + 1
    if mask is not None:
        follows[:, 1:] &= mask[:, 1:].bool() & mask[:, :-1].bool()
    return follows.flatten()


def _count(batch: Mapping[str, Any], domains: int) -> torch.Tensor:
    return tokens_by_domain(row_domains(batch), batch.get("attention_mask"), batch["input_ids"].shape[1], domains)
