"""Trackers of a whole run: transformers' callbacks, fed once over all phases instead of once per trainer."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.integrations import get_reporting_integration_callbacks

from ...registry.errors import ConfigError

#: Where trackers keep files, by the variable that tells them; a user's own setting takes precedence.
_PLACES: Mapping[str, str] = {
    "MLFLOW_TRACKING_URI": "sqlite:///{folder}/mlflow.db",
    "SWANLAB_LOG_DIR": "{folder}/swanlog",
    "TENSORBOARD_LOGGING_DIR": "{folder}",
    "WANDB_DIR": "{folder}",
}


class RunArguments(TrainingArguments):
    """What a tracker is told of a run: where it may write, its name, and the experiment in place of one trainer's
    arguments."""

    def __init__(self, folder: Path, name: str, facts: Mapping[str, Any]) -> None:
        super().__init__(output_dir=str(folder), run_name=name, report_to="none", use_cpu=not torch.cuda.is_available())
        self._facts = dict(facts)

    def to_dict(self) -> dict[str, Any]:
        """The experiment."""
        return dict(self._facts)


class Trackers:
    """Several trackers over one run, on one axis of optimiser steps."""

    def __init__(self, callbacks: Sequence[TrainerCallback], args: TrainingArguments, steps: int) -> None:
        self._callbacks = tuple(callbacks)
        self._args = args
        self._state = TrainerState(max_steps=steps)
        self._control = TrainerControl()
        self._call("on_init_end")
        self._call("on_train_begin")

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Report the finite ones of ``values`` as of ``step`` optimiser steps since the curriculum began."""
        finite = {name: float(value) for name, value in values.items() if math.isfinite(value)}
        if finite:
            self._state.global_step = step
            self._call("on_log", logs=finite)

    def close(self) -> None:
        """End every tracker's run."""
        self._call("on_train_end")

    def _call(self, event: str, **facts: Any) -> None:
        for callback in self._callbacks:
            # Each gets a log of its own: some change it.
            own = {name: dict(value) for name, value in facts.items()}
            getattr(callback, event)(self._args, self._state, self._control, **own)


def open_trackers(names: Sequence[str], folder: Path, name: str, facts: Mapping[str, Any], steps: int) -> Trackers:
    """Begin a run called ``name`` in every named tracker, with what it writes below ``folder`` where it can be told.

    Raises ``ConfigError`` where a tracker cannot begin.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with _places(folder):
        callbacks = []
        for tracker in dict.fromkeys(names):
            try:
                callbacks += [kind() for kind in get_reporting_integration_callbacks([tracker])]
            except (ImportError, RuntimeError) as error:
                raise ConfigError(f"run.report_to: the tracker '{tracker}' cannot begin: {error}") from error
        return Trackers(callbacks, RunArguments(folder, name, facts), steps)


@contextmanager
def _places(folder: Path) -> Iterator[None]:
    told = {key: place.format(folder=folder.resolve()) for key, place in _PLACES.items() if key not in os.environ}
    os.environ.update(told)
    try:
        yield
    finally:
        for key in told:
            os.environ.pop(key, None)


def load_values(load: Sequence[Sequence[float]]) -> dict[str, float]:
    """What is reported of a load, shape (L, E): every expert's share, or each layer's least and most where there are
    more than 256 experts in all."""
    if sum(len(layer) for layer in load) > 256:
        bounds = {"min": min, "max": max}
        return {
            f"router/load/{number}/{name}": float(of(layer))
            for number, layer in enumerate(load)
            for name, of in bounds.items()
        }
    return {
        f"router/load/{number}/{expert}": float(share)
        for number, layer in enumerate(load)
        for expert, share in enumerate(layer)
    }
