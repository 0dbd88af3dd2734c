"""Checkpoints inside a step: complete or not at all, and the same bits after them."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from threading import Event
from typing import Any

import pytest
import torch
from datasets import Dataset
from phasegate.core.training.bump import BumpCallback
from phasegate.core.training.checkpoint import StopCallback, latest_complete
from phasegate.core.training.job import StepJob, build_trainer
from phasegate.core.training.release import release
from phasegate.core.training.terms import WeightedLoss
from phasegate.registry.errors import StoreError
from transformers import PreTrainedModel, TrainerCallback

Models = Callable[..., PreTrainedModel]
Rows = Callable[..., Dataset]
Jobs = Callable[..., StepJob]
Losses = Callable[..., tuple[WeightedLoss, ...]]


class StopAt(TrainerCallback):
    """Sets an event after a step."""

    def __init__(self, event: Event, step: int) -> None:
        self.event, self.step = event, step

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.global_step == self.step:
            self.event.set()


def _train(job: StepJob, resume: Path | None = None) -> tuple[dict[str, torch.Tensor], list[dict[str, float]], Any]:
    trainer = build_trainer(job)
    trainer.train(resume_from_checkpoint=None if resume is None else str(resume))
    release(trainer)
    bits = {name: value.clone() for name, value in job.model.state_dict().items()}
    return bits, [row for row in trainer.state.log_history if "loss" in row], trainer


def _same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(first[name], second[name]) for name in first)


def _interrupted(make: Callable[[Any], StepJob], at: int) -> tuple[StepJob, Path]:
    """A job stopped cleanly after a step, and the checkpoint it left."""
    event = Event()
    job = make([StopAt(event, at), StopCallback(event)])
    _train(job)
    found = latest_complete(job.folder)
    assert found is not None and found.name == f"checkpoint-{at}"
    return job, found


@pytest.mark.parametrize("checkpointing", [False, True])
def test_a_resumed_causal_step_ends_in_the_same_bits(
    make_model: Models,
    causal_rows: Rows,
    make_job: Jobs,
    make_losses: Losses,
    tmp_path: Path,
    checkpointing: bool,
) -> None:
    section = {
        "steps": 6,
        "rows": 4,
        "accumulate": 2,
        "learning_rate": 0.01,
        "warmup": 0.2,
        "clip": 1.0,
        "activation_checkpointing": checkpointing,
    }

    def make(folder: str, callbacks: Any, seed: int = 0) -> StepJob:
        model = make_model(seed)
        rows = causal_rows(24)
        return make_job(model, rows, section, losses=make_losses(model), callbacks=callbacks, folder=tmp_path / folder)

    straight, straight_logs, _ = _train(make("straight", []))
    stopped, checkpoint = _interrupted(lambda callbacks: make("stopped", callbacks), 3)
    # The fresh model has other weights: everything must come from the checkpoint.
    again = make("stopped", list(stopped.callbacks), seed=7)
    again.callbacks[0].event.clear()
    again.callbacks[0].step = -1
    resumed, logs, _ = _train(again, checkpoint)
    assert _same(straight, resumed)
    drop = {"epoch"}
    assert [{k: v for k, v in row.items() if k not in drop} for row in logs] == [
        {k: v for k, v in row.items() if k not in drop} for row in straight_logs
    ]


@pytest.mark.parametrize("objective", ["sft", "dpo"])
def test_a_resumed_trl_step_ends_in_the_same_bits(
    make_model: Models,
    chat_rows: Rows,
    pair_rows: Rows,
    make_job: Jobs,
    make_losses: Losses,
    make_replay: Callable[[int, int], Any],
    tmp_path: Path,
    objective: str,
) -> None:
    section: dict[str, Any] = {"steps": 4, "rows": 4, "accumulate": 2, "learning_rate": 0.01}
    rows = chat_rows(16) if objective == "sft" else pair_rows(16)

    def make(folder: str, callbacks: Any, seed: int = 0) -> StepJob:
        model = make_model(seed)
        return make_job(
            model,
            rows,
            section,
            objective=objective,
            losses=make_losses(model),
            replay=make_replay(3, 2),
            reference=make_model(0).requires_grad_(False) if objective == "dpo" else None,
            callbacks=callbacks,
            folder=tmp_path / folder,
        )

    straight, _, _ = _train(make("straight", []))
    _, checkpoint = _interrupted(lambda callbacks: make("stopped", callbacks), 2)
    resumed, _, _ = _train(make("stopped", [], seed=7), checkpoint)
    assert _same(straight, resumed)


def test_a_checkpoint_without_its_marker_is_never_resumed_from(
    make_model: Models, causal_rows: Rows, make_job: Jobs
) -> None:
    job = make_job(make_model(), causal_rows(12), {"steps": 3, "rows": 4}, save_steps=1)
    _train(job)
    last = latest_complete(job.folder)
    assert last is not None and last.name == "checkpoint-3"
    (last / "COMPLETE").unlink()
    assert latest_complete(job.folder) == job.folder / "checkpoint-2"
    trainer = build_trainer(job)
    with pytest.raises(StoreError, match="checkpoint-3 is not complete"):
        trainer.train(resume_from_checkpoint=str(last))
    release(trainer)


def test_a_folder_with_a_strange_name_is_no_checkpoint(tmp_path: Path) -> None:
    for name in ("checkpoint-x", "checkpoint-3-old"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "COMPLETE").write_text("{}")
    assert latest_complete(tmp_path) is None


def test_two_checkpoints_are_kept(make_model: Models, causal_rows: Rows, make_job: Jobs) -> None:
    job = make_job(make_model(), causal_rows(20), {"steps": 5, "rows": 4}, save_steps=1)
    _train(job)
    assert sorted(path.name for path in job.folder.glob("checkpoint-*")) == ["checkpoint-4", "checkpoint-5"]


def test_the_marker_is_written_after_everything_else(
    make_model: Models, causal_rows: Rows, make_job: Jobs, make_losses: Losses
) -> None:
    model = make_model()
    job = make_job(model, causal_rows(4), {"steps": 1, "rows": 4}, losses=make_losses(model))
    _train(job)
    folder = job.folder / "checkpoint-1"
    marker = (folder / "COMPLETE").stat().st_mtime_ns
    assert all(path.stat().st_mtime_ns <= marker for path in folder.rglob("*"))
    assert json.loads((folder / "COMPLETE").read_text())["facts"]["step"] == 1


def test_state_of_a_loss_that_is_gone_is_refused(
    make_model: Models, causal_rows: Rows, make_job: Jobs, make_losses: Losses
) -> None:
    model = make_model()
    job = make_job(model, causal_rows(4), {"steps": 1, "rows": 4}, losses=make_losses(model))
    _train(job)
    trainer = build_trainer(replace(job, losses=()))
    with pytest.raises(StoreError, match="holds the loss 'balance', which this step does not have"):
        trainer.train(resume_from_checkpoint=str(job.folder / "checkpoint-1"))
    release(trainer)


def test_a_callbacks_state_comes_back(make_model: Models, causal_rows: Rows, make_job: Jobs, tmp_path: Path) -> None:
    def callback() -> BumpCallback:
        return BumpCallback(causal_rows(4, seed=9), steps=4, every=0.25)

    whole, event = callback(), Event()
    section = {"steps": 4, "rows": 2, "learning_rate": 0.01}
    _train(make_job(make_model(), causal_rows(8), section, callbacks=[whole]))
    stop = [callback(), StopAt(event, 2), StopCallback(event)]
    job = make_job(make_model(), causal_rows(8), section, callbacks=stop, folder=tmp_path / "stopped")
    _train(job)
    again = callback()
    found = latest_complete(job.folder)
    assert found is not None
    _train(replace(job, model=make_model(3), callbacks=[again]), found)
    assert again.series == whole.series


def test_a_stop_saves_and_ends_after_the_step(make_model: Models, causal_rows: Rows, make_job: Jobs) -> None:
    event = Event()
    stop = StopCallback(event)
    job = make_job(make_model(), causal_rows(20), {"steps": 5, "rows": 4}, callbacks=[StopAt(event, 2), stop])
    _, _, trainer = _train(job)
    assert stop.stopped
    assert trainer.state.global_step == 2
    assert latest_complete(job.folder) == job.folder / "checkpoint-2"
