"""Watching a step from inside its trainer: what it read, what had a gradient, what moved, what was counted."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback

from ..model.parameters import roles_of

Tensors = Mapping[str, torch.Tensor]


@dataclass(slots=True, kw_only=True)
class Observed:
    """What one step of the rehearsal did; tensors are copies on the CPU."""

    job: Any
    before: Tensors
    roles: Mapping[str, str]
    teacher: Any = None
    teacher_before: str = ""
    teacher_after: str = ""
    teacher_learns: bool = False
    teacher_trains: bool = False
    after: Tensors = field(default_factory=dict)
    gradients: dict[str, float] = field(default_factory=dict)
    rows: list[tuple[int, tuple[int, ...]]] = field(default_factory=list)
    supervised: list[tuple[int, int]] = field(default_factory=list)
    optimizer: Mapping[str, Tensors] = field(default_factory=dict)
    history: tuple[Mapping[str, float], ...] = ()
    checkpoint: Path | None = None


class Witness(TrainerCallback):
    """Fills an ``Observed`` while its trainer trains, and copies the trainer's first checkpoint to ``keep``."""

    def __init__(self, keep: Path) -> None:
        self.observed: Observed | None = None
        self._keep = keep
        self._trainer: Any = None

    def attach(self, trainer: Any) -> None:
        """Begin to watch; called when the trainer is ready."""
        job = trainer.job
        teacher = getattr(trainer, "teacher", None)
        self._trainer = trainer
        self.observed = Observed(
            job=job,
            before=copied(job.model),
            roles=roles_of(job.model),
            teacher=job.reference if teacher is None else teacher,
        )
        if self.observed.teacher is not None:
            self.observed.teacher_before = digest_of(self.observed.teacher)
            self.observed.teacher_learns = any(p.requires_grad for p in self.observed.teacher.parameters())
        compute = trainer.compute_loss

        def watched(model: Any, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
            if model.training and torch.is_grad_enabled():
                self._read(inputs)
            return compute(model, inputs, *args, **kwargs)

        trainer.compute_loss = watched

    def _read(self, inputs: Mapping[str, Any]) -> None:
        assert self.observed is not None
        step = int(self._trainer.state.global_step)
        for valid, supervised, tokens in rows_of(inputs):
            self.observed.rows.append((step, tokens))
            self.observed.supervised.append((valid, supervised))

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        assert self.observed is not None
        found = self.observed.gradients
        for name, parameter in self._trainer.model.named_parameters():
            if parameter.grad is not None:
                found[name] = max(found.get(name, 0.0), float(parameter.grad.detach().abs().max()))

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._keep_checkpoint(args, state)

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        assert self.observed is not None
        self._keep_checkpoint(args, state)
        trainer, observed = self._trainer, self.observed
        observed.after = copied(trainer.model)
        observed.optimizer = optimizer_state(trainer)
        observed.history = tuple(dict(row) for row in state.log_history)
        if observed.teacher is not None:
            observed.teacher_after = digest_of(observed.teacher)
            observed.teacher_trains = any(module.training for module in observed.teacher.modules())

    def _keep_checkpoint(self, args: Any, state: Any) -> None:
        """Copy the first checkpoint once it is whole, which it is when the step after it begins."""
        observed = self.observed
        if observed is None or observed.checkpoint is not None or state.global_step == 0:
            return
        for folder in sorted(Path(args.output_dir).glob("checkpoint-*")):
            if (folder / "COMPLETE").is_file():
                shutil.copytree(folder, self._keep / folder.name)
                observed.checkpoint = self._keep / folder.name
                return


def rows_of(inputs: Mapping[str, Any]) -> list[tuple[int, int, tuple[int, ...]]]:
    """Return (valid tokens, supervised tokens, the valid tokens themselves) of every row of a training batch."""
    ids = inputs["input_ids"]
    mask = inputs.get("attention_mask")
    valid = torch.ones_like(ids) if mask is None else mask
    marked = inputs["completion_mask"] if "completion_mask" in inputs else inputs["labels"] != -100
    return [
        (int(valid[row].sum()), int(marked[row].sum()), tuple(ids[row][valid[row].bool()].tolist()))
        for row in range(len(ids))
    ]


def copied(model: Any) -> dict[str, torch.Tensor]:
    """Return copies of all parameters and buffers by name."""
    return {name: tensor.detach().cpu().clone() for name, tensor in model.state_dict().items()}


def digest_of(model: Any) -> str:
    """Return a digest of all parameters and buffers."""
    whole = hashlib.sha256()
    for tensor in model.state_dict().values():
        whole.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return whole.hexdigest()


def optimizer_state(trainer: Any) -> dict[str, dict[str, torch.Tensor]]:
    """Return copies of the optimiser's state by parameter name."""
    names = {id(parameter): name for name, parameter in trainer.model.named_parameters()}
    optimizer = getattr(trainer.optimizer, "optimizer", trainer.optimizer)
    return {
        names[id(parameter)]: {
            key: torch.as_tensor(value).detach().cpu().clone() for key, value in optimizer.state[parameter].items()
        }
        for group in optimizer.param_groups
        for parameter in group["params"]
        if parameter in optimizer.state and id(parameter) in names
    }
