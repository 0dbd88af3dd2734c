"""Proofs of gates: each asks the model that it is given, and leaves it and the random streams as they were."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ..run.gates import context_of, gate_key
from .proof import Proof, Proofs, proved
from .rehearsal import Rehearsal
from .shrinking import DOCUMENTS, small_criterion
from .witness import digest_of

if TYPE_CHECKING:
    from ..config.schema import CriterionSection
    from ..run.plan import Plan, StagePlan


class _Asked(BaseException):
    """Raised by a model that is asked; no library may take it for an answer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Asking:
    """One gate to be measured: where it is used first, and how."""

    stage: StagePlan
    name: str
    criterion: CriterionSection


def askings(plan: Plan) -> Iterator[Asking]:
    """Every gate that the plan measures, once for all criteria that one measurement serves."""
    seen: set[str] = set()
    for stage in plan.stages:
        for name, criterion in {**stage.section.entry, **stage.section.gates}.items():
            key = gate_key(small_criterion(criterion))
            if key not in seen:
                seen.add(key)
                yield Asking(stage=stage, name=name, criterion=criterion)


def measure(rehearsal: Rehearsal, asking: Asking) -> Proofs:
    """Measure a gate once, and then on a model that cannot answer: one that still has a score did not ask it."""
    from ..model.loading import load_model

    stage, criterion = asking.stage, asking.criterion
    subject = f"{stage.name}: {asking.name} ({criterion.use})"
    model = load_model(rehearsal.outcome(stage.name).stage.checkpoint, rehearsal.plan.registry)
    small = small_criterion(criterion)
    folder = rehearsal.folder / "gates" / gate_key(small)
    folder.mkdir(parents=True, exist_ok=True)
    watched = [seen for place, seen in rehearsal.trained() if place.stage.name == stage.name]
    history = tuple(row for seen in watched for row in seen.history)
    context = context_of(rehearsal.shop(_own(rehearsal, stage)), model, folder, history)
    # Another number of documents than in the rehearsal, whose score somebody might have kept.
    context = replace(context, documents=max(1, (small.documents or DOCUMENTS) - 1))
    gate = rehearsal.plan.registry.build("gate", small.use, small.options)
    model.train()
    before, calls = _state(model), [0]

    def count(*_: Any) -> None:
        calls[0] += 1

    handle = model.get_input_embeddings().register_forward_pre_hook(count)
    try:
        gate.measure(context)
    finally:
        handle.remove()
    after = _state(model)
    wrong = next((what for what in before if before[what] != after[what]), None)
    yield proved(
        "gate leaves no trace",
        subject,
        None if wrong is None else f"measuring changes {wrong}, so training would go on otherwise after it",
        "modes, weights and random streams are what they were",
    )
    if not calls[0]:
        reason = "it does not ask the model: it reads weights or the log"
        yield Proof(name="gate asks its model", subject=subject, outcome="skipped", reason=reason)
        return
    with _mute(model):
        try:
            gate.measure(context)
            wrong = "it has a score for a model that cannot answer: it is that of another model"
        except _Asked:
            wrong = None
    yield proved("gate asks its model", subject, wrong, f"{calls[0]} forward passes, and another model is asked too")


@contextmanager
def _mute(model: Any) -> Iterator[None]:
    def refuse(*_: Any) -> None:
        raise _Asked

    handle = model.get_input_embeddings().register_forward_pre_hook(refuse)
    try:
        yield
    finally:
        handle.remove()


def _own(rehearsal: Rehearsal, stage: StagePlan) -> StagePlan:
    return next(one for one in rehearsal.plan.stages if one.name == stage.name)


def _state(model: Any) -> dict[str, Any]:
    """What measuring must not change, in a form that can be compared."""
    numpy = np.random.get_state(legacy=False)
    return {
        "the mode of the model": tuple(module.training for module in model.modules()),
        "what of the model trains": tuple(parameter.requires_grad for parameter in model.parameters()),
        "the weights": digest_of(model),
        "Python's random stream": random.getstate(),
        "numpy's random stream": str(numpy),
        "torch's random stream": torch.random.get_rng_state().numpy().tobytes(),
    }
