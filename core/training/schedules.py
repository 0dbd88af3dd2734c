"""Schedules: the learning rate of a step and the weights of its loss terms."""

from __future__ import annotations

import math
from collections.abc import Callable

from ..config.schema import StepSection, Weight


def learning_rate_factor(section: StepSection) -> Callable[[int], float]:
    """The factor on the peak learning rate at each optimiser step, counted from 0.

    Linear from 0 over ``warmup`` of the steps, 1 until ``decay_from`` of the steps, then cosine or linear to
    ``floor`` at the last step's end (``constant`` stays at 1). SPEC 2B.4.
    """
    steps = max(1, section.steps)
    warmup = math.ceil(section.warmup * steps)
    start = max(warmup, round(section.decay_from * steps))

    def factor(step: int) -> float:
        if step < warmup:
            return step / warmup
        if section.schedule == "constant" or step < start:
            return 1.0
        done = min(1.0, (step - start) / max(1, steps - start))
        fall = 0.5 * (1.0 + math.cos(math.pi * done)) if section.schedule == "cosine" else 1.0 - done
        return section.floor + (1.0 - section.floor) * fall

    return factor


def weight_at(weight: Weight | float, progress: float) -> float:
    """A loss weight at ``progress`` (share of the step done): ``end + (start - end) (1 + cos(pi t)) / 2`` with
    t = min(1, progress / over), or the constant itself. SPEC 2C."""
    if not isinstance(weight, Weight):
        return float(weight)
    done = 1.0 if weight.over <= 0 else min(1.0, progress / weight.over)
    return weight.end + (weight.start - weight.end) * 0.5 * (1.0 + math.cos(math.pi * done))
