"""Expert load over a window of optimiser steps and over all processes."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.distributed as dist


def sum_over_processes(tensor: torch.Tensor) -> torch.Tensor:
    """Add a tensor up over all processes, in place; with one process it is returned as it is."""
    if dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1:
        dist.all_reduce(tensor)
    return tensor


def any_process(value: bool, device: torch.device | str = "cpu") -> bool:
    """Say whether it holds in any process; every process must ask."""
    return bool(sum_over_processes(torch.tensor(float(value), device=device)).item())


class LoadWindow:
    """Exponentially decayed counts of chosen experts: ``window`` optimiser steps is the mean age it remembers.

    Micro-batches only ``add``; the window moves in ``advance``, once per optimiser step, by counts summed over
    micro-batches and processes. What ``share`` gives is therefore constant within a step and does not depend on how
    the step was split. Counts are whole numbers below 2^24 per step, so their fp32 sums are exact and 2 processes
    hold the same bits as 1 with the doubled batch. A window over the global batch and over batch types is what
    balancing needs: Qiu 2025, 2501.11873.
    """

    def __init__(self, window: float) -> None:
        self.decay = 1.0 - 1.0 / window
        self._window: torch.Tensor | None = None
        self._step: torch.Tensor | None = None

    def add(self, counts: torch.Tensor) -> None:
        """Count one micro-batch, shape (..., E)."""
        self._step = counts.clone() if self._step is None else self._step.add_(counts)

    def advance(self) -> None:
        """End the optimiser step: sum over processes, decay, start the next."""
        if self._step is None:
            return
        step = sum_over_processes(self._step)
        self._window = step if self._window is None else self._window.mul_(self.decay).add_(step)
        self._step = None

    def share(self, like: torch.Tensor) -> torch.Tensor:
        """Share of each expert as of the start of this optimiser step, shape and device of ``like`` (..., E);
        uniform where nothing was counted yet."""
        if self._window is None:
            return torch.full_like(like, 1.0 / like.shape[-1])
        total = self._window.sum(-1, keepdim=True)
        return torch.where(total > 0, self._window / total.clamp(min=1e-30), 1.0 / like.shape[-1])

    def state_dict(self) -> dict[str, torch.Tensor]:
        """The window; empty before the first step."""
        return {} if self._window is None else {"window": self._window.clone()}

    def load_state_dict(self, state: Mapping[str, torch.Tensor], device: torch.device) -> None:
        """Restore what ``state_dict`` gave."""
        self._step = None
        self._window = state["window"].to(device).clone() if "window" in state else None
