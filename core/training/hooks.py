"""Callbacks that read their trainer, and the bridge to the hook that plugins may implement on every optimiser step."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Protocol, runtime_checkable

from transformers import TrainerCallback

from ...registry.contexts import StepContext


@runtime_checkable
class Attached(Protocol):
    """A callback that reads the trainer it is called by."""

    def attach(self, trainer: Any) -> None: ...


def attach_all(callbacks: Iterable[Any], trainer: Any) -> None:
    """Tell every callback that asks for it which trainer calls it."""
    for callback in callbacks:
        if isinstance(callback, Attached):
            callback.attach(trainer)


class StepHook(TrainerCallback):
    """Calls ``phasegate_on_step`` after each optimiser step; the loss is passed as a tensor, never read."""

    def __init__(self, hook: Any, phase: str, step: str) -> None:
        self._trainer: Any = None
        self._hook = hook
        self._phase = phase
        self._step = step

    def attach(self, trainer: Any) -> None:
        """Say whose loss to pass on."""
        self._trainer = trainer

    def on_step_end(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
        self._hook.phasegate_on_step(
            ctx=StepContext(
                phase=self._phase,
                step=self._step,
                global_step=state.global_step,
                model=model,
                loss=self._trainer.last_loss,
            )
        )
