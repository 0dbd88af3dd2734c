"""A step run again with one thing changed: what gradient it has, what it logs, what it counts."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from transformers import TrainerCallback

from ..config.schema import StepSection, Weight
from ..run.fingerprint import canonical
from ..run.objectives import starting_model
from ..run.step import open_step
from .rehearsal import Place, Rehearsal

#: Rows of a step that is run again: as one batch, and as so many of one row.
ROWS = 8

#: Terms that look at a window of earlier steps have no gradient in the first one.
_STEPS = 2

_numbers = itertools.count()


@dataclass(frozen=True, slots=True, kw_only=True)
class Rerun:
    """The last optimiser step: gradients by parameter name before they are clipped, logged values, experts' counts."""

    gradients: Mapping[str, torch.Tensor]
    logs: Mapping[str, float]
    counts: Any  # shape: (L, D + 1, E); None without routers

    def distance(self, other: Rerun) -> float:
        """The norm of the difference of two gradients over that of this one."""
        return norm(minus(self.gradients, other.gradients)) / max(norm(self.gradients), 1e-30)


class _Gradients(TrainerCallback):
    """Keeps the gradients of the last optimiser step."""

    def __init__(self) -> None:
        self.trainer: Any = None
        self.gradients: dict[str, torch.Tensor] = {}

    def attach(self, trainer: Any) -> None:
        self.trainer = trainer

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.gradients = {
            name: parameter.grad.detach().cpu().clone()
            for name, parameter in self.trainer.model.named_parameters()
            if parameter.grad is not None
        }


def small(section: StepSection) -> StepSection:
    """The section of few optimiser steps on few rows that leave the weights as they are, unclipped.

    Weights are the largest of their schedules. trl averages the cross-entropy beside a preference loss over
    micro-batches of unequal length, which is left out.
    """
    losses = {name: replace(loss, weight=_largest(loss.weight)) for name, loss in section.losses.items()}
    replay = replace(section.replay, rows=min(section.replay.rows, ROWS))
    options = {**section.options, "nll": 0.0} if section.objective == "dpo" else section.options
    return replace(
        section,
        steps=_STEPS,
        rows=ROWS,
        accumulate=1,
        activation_checkpointing=False,
        learning_rate=0.0,
        clip=0.0,
        losses=losses,
        replay=replay,
        options=options,
    )


def _largest(weight: Weight | float) -> float:
    return max(weight.start, weight.end) if isinstance(weight, Weight) else float(weight)


def rerun(rehearsal: Rehearsal, place: Place, section: StepSection) -> Rerun:
    """Carry out ``section`` from the model that the step began with; the same section is carried out once."""
    key = f"{place.label} {canonical(section)}"
    if key not in rehearsal.again:
        rehearsal.again[key] = _rerun(rehearsal, place, section)
    again: Rerun = rehearsal.again[key]
    return again


def _rerun(rehearsal: Rehearsal, place: Place, section: StepSection) -> Rerun:
    from ..training.release import release

    gradients = _Gradients()
    shop = replace(rehearsal.shop(place.stage), callbacks=lambda step, tokens: (gradients,))
    order = rehearsal.order(place, section, rehearsal.folder / "again" / str(next(_numbers)))
    model = starting_model(shop, order, rehearsal.beginning(place))
    opened = open_step(shop, order, model)
    try:
        opened.trainer.train()
        logs = [dict(row) for row in opened.trainer.state.log_history if "loss/task" in row][-1]
        counts = opened.trainer.statistics.last_counts
    finally:
        release(opened.trainer)
    return Rerun(gradients=gradients.gradients, logs=logs, counts=None if counts is None else np.array(counts))


def minus(left: Mapping[str, torch.Tensor], right: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The difference of two sets of gradients; what one of them lacks is zero there."""
    return {
        name: left.get(name, torch.zeros(())) - right.get(name, torch.zeros(())) for name in sorted({*left, *right})
    }


def norm(gradients: Mapping[str, torch.Tensor]) -> float:
    """The Euclidean norm over all parameters."""
    return float(sum(gradient.double().square().sum() for gradient in gradients.values()) ** 0.5)
