"""The bridge from the trainer to the hook that plugins may implement on every optimiser step."""

from __future__ import annotations

from typing import Any

from transformers import TrainerCallback

from ...registry.contexts import StepContext


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
