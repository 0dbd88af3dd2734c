"""Checkpoints inside a step: plugin state beside the trainer's, a COMPLETE marker last, the way back, a clean stop."""

from __future__ import annotations

import json
import logging
import pickle
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import TrainerCallback

from ...registry.atomic import shortage
from ...registry.errors import StoreError
from ...registry.sealed import seal, unseal
from .job import world_size
from .window import any_process

if TYPE_CHECKING:
    from .job import StepJob

COMPLETE = "COMPLETE"
FORMAT = 1
_TENSORS = "phasegate_losses.safetensors"
_STATE = "phasegate_state.json"
_FOLDER = re.compile(r"checkpoint-(\d+)")


@runtime_checkable
class Resumable(Protocol):
    """A callback whose JSON state is saved with the checkpoint and restored before training resumes."""

    def state_dict(self) -> Mapping[str, Any]: ...

    def load_state_dict(self, state: Mapping[str, Any]) -> None: ...


@runtime_checkable
class WithTensors(Protocol):
    """A resumable callback that also has tensors to save and restore."""

    def tensors(self) -> Mapping[str, torch.Tensor]: ...

    def load_tensors(self, tensors: Mapping[str, torch.Tensor]) -> None: ...


def latest_complete(folder: Path) -> Path | None:
    """The last complete checkpoint in a job's folder, or None; a folder without its marker is never trusted."""
    found = [
        (int(match.group(1)), path)
        for path in folder.glob("checkpoint-*")
        if (match := _FOLDER.fullmatch(path.name)) and (path / COMPLETE).is_file()
    ]
    return max(found)[1] if found else None


def remove_incomplete(folder: Path) -> None:
    """Remove the checkpoints of a job's folder that a kill left without their marker.

    The trainer counts them when it removes old ones, so that a complete one would go while they stay.
    """
    for path in folder.glob("checkpoint-*"):
        if _FOLDER.fullmatch(path.name) and not (path / COMPLETE).is_file():
            shutil.rmtree(path)


@contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Tell a full disk or a folder that is read-only as a ``StoreError``, and a pickle of forbidden things, too."""
    try:
        yield
    except pickle.UnpicklingError as error:
        raise StoreError(
            f"a checkpoint in {folder} holds objects that are never loaded ({str(error).splitlines()[0]}); it was not "
            "written by a run, so move it away"
        ) from error
    except (OSError, RuntimeError, SafetensorError) as error:
        if (cause := shortage(error, folder)) is None:
            raise
        raise StoreError(f"cannot write a checkpoint in {folder}: {cause}") from error


def check_weights(model: nn.Module, folder: Path) -> None:
    """Raise ``StoreError`` unless a checkpoint folder is as it was written, by as many processes as there are now, and
    its weights are those of this model, name by name.

    The trainer loads what it recognises and only warns about the rest, or draws random numbers anew in silence.
    """
    if not (folder / COMPLETE).is_file():
        raise StoreError(f"the checkpoint {folder} is not complete; resume from latest_complete() or start anew")
    facts = unseal(
        folder / COMPLETE,
        f"the checkpoint {folder}",
        "move the checkpoint's folder away and run again to go on from the one before it, or from the step's start",
    )
    if facts["processes"] != world_size():
        raise StoreError(
            f"the checkpoint {folder} was written by {facts['processes']} process(es) and this run has {world_size()}, "
            f"which would draw other numbers; run it with {facts['processes']}, or move {folder.parent} away to start "
            "the step anew"
        )
    saved: set[str] = set()
    for path in folder.glob("model*.safetensors"):
        with safe_open(path, framework="pt") as file:
            saved |= set(file.keys())
    state = model.state_dict()
    found = {tensor.data_ptr() for name, tensor in state.items() if name in saved}
    # A tied parameter is saved once.
    missing = {name for name, tensor in state.items() if name not in saved and tensor.data_ptr() not in found}
    wrong = missing | (saved - set(state))
    if wrong:
        raise StoreError(
            f"the checkpoint {folder} holds other weights than this {type(model).__name__} ('{min(wrong)}' is in one "
            "of them only); start the step anew"
        )


@contextmanager
def no_missing_key_warnings() -> Iterator[None]:
    """Silence the trainer's warning about tied weights that are saved once, after ``check_weights``."""

    def wanted(record: logging.LogRecord) -> bool:
        return not record.getMessage().startswith("There were missing keys in the checkpoint model loaded")

    logger = logging.getLogger("transformers.trainer")
    logger.addFilter(wanted)
    try:
        yield
    finally:
        logger.removeFilter(wanted)


class PluginState(TrainerCallback):
    """Writes loss terms and resumable callbacks into every checkpoint, syncs it to disk and marks it complete, with
    the digests of its files.

    Logs whenever it saves, so that no running mean straddles a checkpoint. Old checkpoints are removed by the trainer
    before a new one is marked, which therefore never is the only one while incomplete (``save_total_limit`` >= 2).
    """

    def __init__(self, job: StepJob) -> None:
        self._losses = {term.name: term.loss for term in job.losses}
        # Counted among themselves: a resumed run may draw progress where the first one did not.
        resumable = [callback for callback in job.callbacks if isinstance(callback, Resumable)]
        self._callbacks = {f"{type(callback).__name__}:{n}": callback for n, callback in enumerate(resumable)}
        self.wait: Callable[[], None] = lambda: None

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if control.should_save or control.should_training_stop:
            control.should_log = True

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.wait()  # every process has written its random state
        if state.is_world_process_zero:
            self.write(Path(args.output_dir) / f"checkpoint-{state.global_step}", state.global_step)
        self.wait()

    def write(self, folder: Path, step: int) -> None:
        """Write the plugin state into a checkpoint folder, then its marker."""
        tensors = {
            f"{name}/{key}": value.detach().cpu().contiguous()
            for name, loss in self._losses.items()
            for key, value in loss.state_dict().items()
        }
        tensors |= {
            f"{name}/{key}": value.cpu().contiguous()
            for name, callback in self._callbacks.items()
            if isinstance(callback, WithTensors)
            for key, value in callback.tensors().items()
        }
        save_file(tensors, folder / _TENSORS)
        state = {name: dict(callback.state_dict()) for name, callback in self._callbacks.items()}
        (folder / _STATE).write_text(json.dumps({"format": FORMAT, "step": step, "callbacks": state}, sort_keys=True))
        files = [path for path in folder.rglob("*") if path.is_file()]
        seal(folder / COMPLETE, {"format": FORMAT, "processes": world_size(), "step": step}, files)

    def restore(self, checkpoint: str | Path) -> int:
        """Restore loss terms and callbacks from a checkpoint folder; the optimiser step it was written after.

        Raises ``StoreError`` for a folder that was written by other losses or callbacks.
        """
        folder = Path(checkpoint)
        state = json.loads((folder / _STATE).read_text())
        if state.get("format") != FORMAT or set(state["callbacks"]) != set(self._callbacks):
            raise StoreError(
                f"the checkpoint {folder} has format {state.get('format')} and the callbacks "
                f"{sorted(state.get('callbacks', ()))}, but this step has format {FORMAT} and "
                f"{sorted(self._callbacks)}; start the step anew"
            )
        tensors = load_file(folder / _TENSORS)
        strangers = {name.partition("/")[0] for name in tensors} - set(self._losses) - set(self._callbacks)
        if strangers:
            raise StoreError(
                f"the checkpoint {folder} holds the loss {min(strangers)!r}, which this step does not have; "
                "start the step anew"
            )
        for name, loss in self._losses.items():
            prefix = f"{name}/"
            loss.load_state_dict({k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)})
        for name, callback in self._callbacks.items():
            callback.load_state_dict(state["callbacks"][name])
            if isinstance(callback, WithTensors):
                prefix = f"{name}/"
                callback.load_tensors({k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)})
        return int(state["step"])


class StopCallback(TrainerCallback):
    """Ends training cleanly, with a complete checkpoint, at the next logged or saved step after ``event`` was set.

    Not at any step: the trainer's running means live in memory alone, so a stop between two logged steps would split
    one and a resumed run would tell other numbers than an unbroken one. With several processes the event of any one
    stops all.
    """

    def __init__(self, event: Event) -> None:
        self.stopped = False
        self._event = event

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if not (control.should_log or control.should_save):
            return
        if any_process(self._event.is_set(), args.device) and state.global_step < state.max_steps:
            self.stopped = True
            control.should_save = control.should_training_stop = True
