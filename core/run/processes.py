"""Several processes of one run: who writes, how they wait, and how they agree."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING, TypeVar

from .interrupt import Interrupted, Interruption

if TYPE_CHECKING:
    import torch

T = TypeVar("T")


def world_size() -> int:
    """Return how many processes the launcher started (1 without a launcher)."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def is_main() -> bool:
    """Say whether this process writes to the store."""
    return int(os.environ.get("RANK", "0")) == 0


def wait_for_all() -> None:
    """Return when every process has come here."""
    if world_size() > 1:
        from accelerate import PartialState

        PartialState().wait_for_everyone()


def agree(value: T) -> T:
    """Return the main process's value in every process: one decision, whatever rounding did elsewhere."""
    if world_size() == 1:
        return value
    from accelerate.utils import broadcast_object_list

    box = [value]
    broadcast_object_list(box, from_process=0)
    return box[0]


def stop_together(interruption: Interruption) -> None:
    """Raise ``Interrupted`` if any process was asked to stop; every process must come here, and then all stop."""
    if world_size() > 1:
        from ..training.window import any_process

        if any_process(interruption.requested, _device()) and not interruption.requested:
            raise Interrupted(128 + signal.SIGTERM)
    interruption.check()


def start_processes(threads: int | None) -> None:
    """Join the other processes of the launcher, if any, and set the number of threads of each."""
    if threads is not None:
        import torch

        torch.set_num_threads(threads)
    if world_size() > 1:
        from accelerate import PartialState

        PartialState(cpu=not _has_accelerator())


def _device() -> torch.device:
    from accelerate import PartialState

    device: torch.device = PartialState().device
    return device


def _has_accelerator() -> bool:
    import torch

    return bool(torch.accelerator.is_available())
