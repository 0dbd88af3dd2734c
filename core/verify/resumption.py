"""Proofs of resume: a step that goes on from its checkpoint ends in the bits that it would have ended in."""

from __future__ import annotations

import shutil
from dataclasses import replace
from typing import Any

import torch

from ..run.attempt import depends_on_the_process
from ..run.objectives import starting_model
from ..run.step import train_step
from .proof import Proofs, proved, some
from .rehearsal import Place, Rehearsal, is_trained
from .witness import Observed, Witness


def resumption(rehearsal: Rehearsal, place: Place) -> Proofs:
    """Resumed after its first checkpoint, a step reads the rows that are left, has the optimiser's state of every
    parameter, and ends with the same weights and logs."""
    whole = rehearsal.observed.get(place.label)
    if whole is not None and whole.checkpoint is not None and is_trained(place.section):
        resumed = _resume(rehearsal, place, whole)
        done = int(whole.checkpoint.name.rpartition("-")[2])
        left = [tokens for step, tokens in whole.rows if step >= done]
        read = [tokens for _, tokens in resumed.rows]
        wrong = None
        if read != left:
            again = [tokens for _, tokens in whole.rows][: len(read)]
            what = "the first rows once more" if read == again else "other rows than were left"
            wrong = f"after the resume the trainer read {what}"
        yield proved("resume reads the rows that are left", place.label, wrong, f"{len(left)} rows after step {done}")
        lost = [name for name, state in whole.optimizer.items() if not _equal(state, resumed.optimizer.get(name, {}))]
        router = [name for name in lost if whole.roles.get(name) == "router"]
        wrong = f"the optimiser's state of {some(router or lost)} is not what it was" if lost else None
        yield proved("resume keeps the optimiser", place.label, wrong, f"state of {len(whole.optimizer)} parameters")
        moved = [name for name, tensor in whole.after.items() if not torch.equal(tensor, resumed.after[name])]
        wrong = None
        if moved:
            wrong = f"{some(moved)} differs from the uninterrupted step"
        elif _logs(whole, done) != _logs(resumed, done):
            wrong = "other values are logged than in the uninterrupted step"
        yield proved("resume ends in the same bits", place.label, wrong, f"{len(whole.after)} tensors and the log")


def _resume(rehearsal: Rehearsal, place: Place, whole: Observed) -> Observed:
    assert whole.checkpoint is not None
    folder = rehearsal.folder / "resumed" / place.stage.name / place.name
    shutil.copytree(whole.checkpoint, folder / whole.checkpoint.name)
    witness = Witness(folder / "kept")
    shop = replace(rehearsal.shop(place.stage), callbacks=lambda step, tokens: (witness,))
    order = rehearsal.order(place, place.section, folder)
    train_step(shop, order, starting_model(shop, order, rehearsal.beginning(place)))
    assert witness.observed is not None
    return witness.observed


def _equal(left: Any, right: Any) -> bool:
    return set(left) == set(right) and all(torch.equal(left[key], right[key]) for key in left)


def _logs(observed: Observed, done: int) -> list[dict[str, float]]:
    return [
        {key: value for key, value in row.items() if not depends_on_the_process(key)}
        for row in observed.history
        if row["step"] > done
    ]
