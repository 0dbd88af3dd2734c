"""Following a step while it trains: what is logged, with the load of every expert and the watched old loss."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from transformers import TrainerCallback

from .bump import BumpCallback
from .statistics import Array, load_share


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Logged:
    """What one logging step told: the log itself, and beside it what a log row has no room for."""

    step: int
    values: Mapping[str, float]
    load: Array | None  # shape: (L, E), share of token slots; None without routers
    old: tuple[tuple[int, float], ...]  # (step, old loss), measured since the last logging step


class Follower(Protocol):
    """Who is told how a step goes."""

    def began(self, done: int, steps: int) -> None: ...

    def reached(self, step: int) -> None: ...

    def logged(self, told: Logged) -> None: ...


class FollowCallback(TrainerCallback):
    """Tells a follower of every step, and at logging steps what was logged.

    Nothing is read from the device: expert counts are those that the trainer's log brought to the host anyway.
    """

    def __init__(self, follower: Follower) -> None:
        self._follower = follower
        self._trainer: Any = None
        self._bump: BumpCallback | None = None
        self._known = 0

    def attach(self, trainer: Any) -> None:
        """Say whose statistics to read."""
        self._trainer = trainer
        callbacks = trainer.callback_handler.callbacks
        self._bump = next((one for one in callbacks if isinstance(one, BumpCallback)), None)

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._known = 0 if self._bump is None else len(self._bump.series)
        self._follower.began(state.global_step, state.max_steps)

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._follower.reached(state.global_step)

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
        if logs and "loss/task" in logs:
            self._follower.logged(
                Logged(step=state.global_step, values=dict(logs), load=self._load(), old=self._measured())
            )

    def _load(self) -> Array | None:
        counts = None if self._trainer is None else self._trainer.statistics.last_counts
        return None if counts is None else load_share(counts)

    def _measured(self) -> tuple[tuple[int, float], ...]:
        if self._bump is None:
            return ()
        new = tuple(self._bump.series[self._known :])
        self._known += len(new)
        return new
