"""Proofs of invariance: a step is the same however it is split, and however its activations are kept."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from .proof import Proofs, proved
from .rehearsal import Place, Rehearsal, is_trained
from .rerun import ROWS, Rerun, rerun, small

#: Largest relative difference of gradients and losses, by precision: what another order of additions makes.
_OFF: Mapping[str, float] = {"bf16": 0.05, "fp32": 1e-3}


def accumulation(rehearsal: Rehearsal, place: Place) -> Proofs:
    """One batch of eight rows has the gradient and the losses of eight micro-batches of one."""
    most = _OFF[rehearsal.plan.experiment.precision]
    if is_trained(place.section):
        section = small(place.section)
        whole, split = (rerun(rehearsal, place, replace(section, accumulate=n)) for n in (1, ROWS))
        name, off = _furthest(whole, split)
        wrong = None
        if off > most:
            wrong = f"{name} differs by {off:.1%} between 1 x {ROWS} and {ROWS} x 1 rows: it depends on accumulate"
        yield proved("accumulation changes nothing", place.label, wrong, f"1 x {ROWS} is {ROWS} x 1 within {off:.1e}")


def recomputation(rehearsal: Rehearsal, place: Place) -> Proofs:
    """Activation checkpointing changes neither the gradient nor how often an expert is counted."""
    most = _OFF[rehearsal.plan.experiment.precision]
    if is_trained(place.section):
        section = small(place.section)
        kept, again = (rerun(rehearsal, place, replace(section, activation_checkpointing=on)) for on in (False, True))
        if kept.counts is not None:
            wrong = _miscounted(kept.counts, again.counts)
            tokens = int(np.asarray(kept.counts)[0].sum())
            yield proved("expert counts with recomputation", place.label, wrong, f"{tokens} token slots either way")
        name, off = _furthest(kept, again)
        wrong = None
        if off > most:
            wrong = f"{name} differs by {off:.1%} with activation checkpointing"
        yield proved("recomputation changes nothing", place.label, wrong, f"the same within {off:.1e}")


def _miscounted(kept: Any, again: Any) -> str | None:
    if again is None:
        return "experts are not counted at all with activation checkpointing"
    once, twice = float(np.sum(kept)), float(np.sum(again))
    if once != twice or not np.array_equal(kept, again):
        return f"{twice:g} token slots are counted with activation checkpointing instead of {once:g}"
    return None


def _furthest(left: Rerun, right: Rerun) -> tuple[str, float]:
    """What differs most between two reruns, and by how much relative to its size."""
    found = [("the gradient", left.distance(right))]
    for name, value in left.logs.items():
        if name.startswith("loss/"):
            found.append((name, abs(value - right.logs.get(name, np.nan)) / max(abs(value), 1e-3)))
    return max(found, key=lambda one: one[1] if one[1] == one[1] else np.inf)
