"""A checkpoint of the trainer in which pickles would run code: refused where it is read, and never run."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from phasegate.core.training.checkpoint import COMPLETE, check_weights, latest_complete
from phasegate.core.training.job import StepJob, build_trainer
from phasegate.core.training.release import release
from phasegate.registry.errors import StoreError
from phasegate.registry.sealed import seal
from transformers import PreTrainedModel

Models = Callable[..., PreTrainedModel]
SECTION = {"steps": 4, "rows": 4, "learning_rate": 0.01}


class Bomb:
    """Makes a file when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return (open, (str(self.marker), "w"))


@pytest.fixture
def job(make_model: Models, causal_rows: Callable[..., Dataset], make_job: Callable[..., StepJob]) -> StepJob:
    """A step that has ended and left a checkpoint after two of its four optimiser steps."""
    job = make_job(make_model(0), causal_rows(16), SECTION, save_steps=2)
    trainer = build_trainer(job)
    trainer.train()
    release(trainer)
    return job


def resumed(job: StepJob, checkpoint: Path) -> None:
    trainer = build_trainer(job)
    try:
        trainer.train(resume_from_checkpoint=str(checkpoint))
    finally:
        release(trainer)


def vouched(checkpoint: Path) -> None:
    """Seal the checkpoint anew, as somebody who may write there could."""
    facts = json.loads((checkpoint / COMPLETE).read_text(encoding="utf-8"))["facts"]
    seal(checkpoint / COMPLETE, facts, [path for path in checkpoint.iterdir() if path.name != COMPLETE])


@pytest.mark.parametrize("name", ["optimizer.pt", "rng_state.pth", "scheduler.pt"])
def test_a_state_that_would_run_code_is_refused(job: StepJob, name: str, tmp_path: Path) -> None:
    checkpoint, marker = job.folder / "checkpoint-2", tmp_path / "ran"
    assert (checkpoint / name).is_file() and (checkpoint / COMPLETE).is_file()
    torch.save({"state": Bomb(marker)}, checkpoint / name)
    with pytest.raises(StoreError, match=f"is damaged: .*{name} has"):
        resumed(job, checkpoint)
    vouched(checkpoint)
    with pytest.raises(StoreError, match="holds objects that are never loaded"):
        resumed(job, checkpoint)
    assert not marker.exists()


def test_what_the_trainer_writes_of_its_arguments_is_never_read(job: StepJob, tmp_path: Path) -> None:
    checkpoint, marker = job.folder / "checkpoint-2", tmp_path / "ran"
    for name in ("training_args.bin", "pytorch_model.bin", "adapter_model.bin"):
        torch.save({"state": Bomb(marker)}, checkpoint / name)
    resumed(job, checkpoint)
    assert not marker.exists() and latest_complete(job.folder) == job.folder / "checkpoint-4"


def test_weights_that_are_a_pickle_are_not_those_of_the_model(job: StepJob, tmp_path: Path) -> None:
    checkpoint, marker = job.folder / "checkpoint-2", tmp_path / "ran"
    (checkpoint / "model.safetensors").unlink()
    torch.save({"state": Bomb(marker)}, checkpoint / "pytorch_model.bin")
    vouched(checkpoint)
    with pytest.raises(StoreError, match="holds other weights"):
        check_weights(job.model, checkpoint)
    assert not marker.exists()
