"""The transition bump: what a new phase does to the validation loss of the one before, and when that recovers."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from transformers import TrainerCallback

from .collating import ChatCollator, causal_batch

if TYPE_CHECKING:
    from datasets import Dataset


@dataclass(frozen=True, slots=True, kw_only=True)
class Bump:
    """``before`` and ``height`` in nats per token; ``recovery`` as a share of the phase: the first measured step after
    which the old loss stays within the tolerance of ``before`` (0: it never left; None: not within this phase);
    ``series`` are (step, old loss)."""

    before: float
    height: float
    recovery: float | None
    series: tuple[tuple[int, float], ...]

    def as_dict(self) -> dict[str, Any]:
        """JSON-able."""
        return asdict(self)


def bump(series: Sequence[tuple[int, float]], steps: int, tolerance: float) -> Bump | None:
    """The bump of a measured series over a phase of ``steps`` optimiser steps; None for an empty series.

    height = max L_old - L_old(0); recovered while L_old <= (1 + tolerance) L_old(0). SPEC 2B.4.
    """
    if not series:
        return None
    before = series[0][1]
    recovery: float | None = None
    for step, loss in reversed(series):
        if not loss <= (1.0 + tolerance) * before:
            break
        recovery = step / max(1, steps)
    height = max(loss for _, loss in series) - before if all(math.isfinite(loss) for _, loss in series) else math.inf
    return Bump(before=before, height=height, recovery=recovery, series=tuple(series))


class BumpCallback(TrainerCallback):
    """Measures the old phase's validation loss before the first step and every ``every`` share of the phase.

    ``rows`` are held-out rows of the old phase, causal (input_ids, position_ids, labels) or chat (input_ids,
    assistant_masks; ``pad`` pads them). ``steps`` is the whole phase's number of optimiser steps and ``offset`` the
    number before this trainer's, for phases of several steps: ``earlier`` then is the series so far.
    Training is not disturbed: random streams, train mode and gradients are as before. ``last`` is the newest value.
    """

    def __init__(
        self,
        rows: Dataset,
        *,
        steps: int,
        every: float = 0.02,
        tolerance: float = 0.005,
        pad: int = 0,
        batch_size: int = 32,
        offset: int = 0,
        earlier: Sequence[tuple[int, float]] = (),
    ) -> None:
        self.series: list[tuple[int, float]] = list(earlier)
        self._steps = steps
        self._interval = max(1, round(every * steps))
        self._tolerance = tolerance
        self._offset = offset
        self._batches = batches_of(rows, pad=pad, batch_size=batch_size)

    @property
    def last(self) -> float | None:
        """The newest measured loss, or None."""
        return self.series[-1][1] if self.series else None

    def result(self) -> Bump | None:
        """The bump so far."""
        return bump(self.series, self._steps, self._tolerance)

    def on_train_begin(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:
        if not self.series:
            self._measure(self._offset, model)

    def on_step_end(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:
        step = self._offset + state.global_step
        if step % self._interval == 0 or step == self._steps:
            self._measure(step, model)

    def state_dict(self) -> Mapping[str, Any]:
        """The series, for the trainer checkpoint."""
        return {"series": [list(point) for point in self.series]}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a checkpoint's series."""
        self.series = [(int(step), float(loss)) for step, loss in state["series"]]

    def _measure(self, step: int, model: nn.Module) -> None:
        self.series.append((step, language_loss(model, self._batches)))


def batches_of(rows: Dataset, *, pad: int = 0, batch_size: int = 32) -> list[dict[str, torch.Tensor]]:
    """Rows as batches of tensors, in their order: packed text, or chats, which ``pad`` pads."""
    collate = causal_batch if "position_ids" in rows.column_names else ChatCollator(pad)
    plain = rows.with_format("numpy")
    starts = range(0, len(plain), batch_size)
    return [collate([plain[i] for i in range(start, min(start + batch_size, len(plain)))]) for start in starts]


@torch.no_grad()
def language_loss(model: nn.Module, batches: Sequence[Mapping[str, torch.Tensor]]) -> float:
    """Cross-entropy in nats per supervised token over batches from a collator, in evaluation mode; the model's mode
    and all random streams are as before."""
    device = next(model.parameters()).device
    was_training = model.training
    devices = [device] if device.type == "cuda" else []
    total = torch.zeros((), device=device)
    count = torch.zeros((), device=device)
    model.eval()
    try:
        with torch.random.fork_rng(devices=devices):
            for batch in batches:
                inputs = {key: value.to(device) for key, value in batch.items() if key != "domain"}
                tokens = (inputs["labels"][:, 1:] != -100).sum()
                total += model(**inputs, use_cache=False, num_items_in_batch=1)["loss"].float()
                count += tokens
    finally:
        model.train(was_training)
    return float(total / count)
