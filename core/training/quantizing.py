"""The progressive quantizer: how much of the expert weights is quantized when, and what every event does."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers import TrainerCallback

from ..config.conversions import check_schedule
from ..model.quantization import Order, Quantization
from .bump import language_loss


@dataclass(frozen=True, slots=True, kw_only=True)
class QuantizerSchedule:
    """From each of the ``events`` on (parts of the step), this one of the ``shares`` is quantized; see
    ``Quantization`` for ``order`` and ``freeze``.

    ``soft`` does not read the shares: its blend rises linearly from 0 at the first event to 1 at the last. With the
    ``largest`` first, Gaussian weights have no zeros at 25 % and 50 %, which come almost all with the last two events;
    with the ``smallest`` first they come at once. The seed's last event is on the last step, so that no token is ever
    trained with all weights quantized; here every event lies before the end. Raises ``ConfigError``.
    """

    events: tuple[float, ...] = (0.0, 0.25, 0.5, 0.75)
    shares: tuple[float, ...] = (0.25, 0.5, 0.75, 1.0)
    order: Order = "largest"
    freeze: bool = False

    def __post_init__(self) -> None:
        check_schedule(self.events, self.shares, "quantizer schedule")

    def due(self, step: int, steps: int) -> int:
        """How many events have come once ``step`` of ``steps`` optimiser steps are done."""
        return sum(step >= _step_of(event, steps) for event in self.events)

    def share_at(self, step: int, steps: int) -> float:
        """What the next optimiser step uses."""
        due = self.due(step, steps)
        if due == 0:
            return 0.0
        if self.order != "soft" or due == len(self.events):
            return self.shares[due - 1]
        first, last = _step_of(self.events[0], steps), _step_of(self.events[-1], steps)
        return (step - first) / (last - first)


class QuantizerCallback(TrainerCallback):
    """Applies a schedule to a quantization, nothing of which is left at first, and measures what every event does.

    ``batches`` are held-out ones, as for ``language_loss``. ``reports`` has a dict per event: ``step``, ``share``,
    ``zeros`` and ``error`` (see ``Rounding``), ``perplexity_before`` and ``perplexity_after`` (None without batches).
    Events that fall on one step are one. Resumable bit for bit with both ``state_dict`` and ``tensors``, because masks
    come from the weights at their event.
    """

    def __init__(
        self,
        quantization: Quantization,
        schedule: QuantizerSchedule,
        batches: Sequence[Mapping[str, torch.Tensor]] = (),
    ) -> None:
        self.reports: list[dict[str, Any]] = []
        self._quantization = quantization
        self._schedule = schedule
        self._batches = tuple(batches)
        self._applied = 0
        self._share = 0.0
        self._restored: dict[str, torch.Tensor] | None = None
        # Now, so that what others measure before the first step is the model as it came.
        quantization.start(schedule.order, freeze=schedule.freeze)

    def on_train_begin(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:
        if self._restored is not None:
            self._quantization.restore(self._share, self._restored)
            self._restored = None
        self._apply(model, state)

    def on_step_begin(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:
        self._apply(model, state)

    def state_dict(self) -> Mapping[str, Any]:
        """Reports and progress, for the trainer checkpoint."""
        return {"applied": self._applied, "reports": [dict(report) for report in self.reports], "share": self._share}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a checkpoint's state."""
        self._applied = int(state["applied"])
        self._share = float(state["share"])
        self.reports = [dict(report) for report in state["reports"]]
        # Masks that were lost are missed when training begins.
        self._restored = {} if self._restored is None else self._restored

    def tensors(self) -> dict[str, torch.Tensor]:
        """The masks by parameter name, 8 in a byte, for the trainer checkpoint."""
        return self._quantization.packed_masks() if self._restored is None else dict(self._restored)

    def load_tensors(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """Go on with a checkpoint's masks, once training begins."""
        self._restored = dict(tensors)

    def _apply(self, model: nn.Module, state: Any) -> None:
        step, steps = state.global_step, state.max_steps
        due, share = self._schedule.due(step, steps), self._schedule.share_at(step, steps)
        if due > self._applied:
            before = self._perplexity(model)
            self._quantization.set_share(share)
            rounding = self._quantization.rounding()
            self.reports.append(
                {
                    "step": step,
                    "share": share,
                    "zeros": rounding.zeros,
                    "error": rounding.error,
                    "perplexity_before": before,
                    "perplexity_after": self._perplexity(model),
                }
            )
        elif share != self._share:
            self._quantization.set_share(share)
        self._applied, self._share = due, share

    def _perplexity(self, model: nn.Module) -> float | None:
        if not self._batches:
            return None
        loss = language_loss(model, self._batches)
        return math.exp(loss) if not loss > 700.0 else math.inf


def _step_of(event: float, steps: int) -> int:
    # Down, so that an event before the end always comes; 0.07 of 100 is 7.000000000000001.
    return int(event * steps + 1e-9)
