"""Proofs of what trains: frozen parameters keep their bits, the others move, routers and teachers do as they should."""

from __future__ import annotations

import re

import torch

from ..training.freezing import matching
from .proof import Proofs, proved, some
from .rehearsal import Rehearsal
from .witness import Observed

_SLICE = re.compile(r"experts\[([\d,-]+)\]")


def frozen(rehearsal: Rehearsal) -> Proofs:
    """What ``freeze`` names has the same bits after the step as before."""
    for place, observed in rehearsal.trained():
        if not place.section.freeze:
            continue
        names, experts = _frozen(observed, place.section.freeze)
        moved = [name for name in sorted(names) if _moved(observed, name)]
        for name in _stacked(observed):
            changed = [n for n in sorted(experts) if not torch.equal(observed.before[name][n], observed.after[name][n])]
            moved += [f"{name}[{n}]" for n in changed]
        wrong = f"{some(moved)} changed, though freeze names it" if moved else None
        told = f"{len(names)} parameters" + (f" and experts {sorted(experts)}" if experts else "")
        yield proved("frozen parameters stay", place.label, wrong, f"{told} have the bits that they had")


def trainable(rehearsal: Rehearsal) -> Proofs:
    """Every parameter that is not frozen gets a gradient and moves."""
    for place, observed in rehearsal.trained():
        names, _ = _frozen(observed, place.section.freeze)
        free = [name for name in observed.roles if name not in names]
        still = [name for name in free if not _moved(observed, name)]
        wrong = f"{some(still)} did not move, though nothing freezes it" if still else None
        yield proved("trainable parameters move", place.label, wrong, f"{len(free)} parameters changed")


def routers(rehearsal: Rehearsal) -> Proofs:
    """Every router that trains gets a gradient."""
    for place, observed in rehearsal.trained():
        names, _ = _frozen(observed, place.section.freeze)
        found = [name for name, role in observed.roles.items() if role == "router" and name not in names]
        if not found:
            continue
        without = [name for name in found if not observed.gradients.get(name, 0.0) > 0.0]
        wrong = f"{some(without)} has no gradient, so the router learns nothing" if without else None
        yield proved("routers learn", place.label, wrong, f"{len(found)} parameters of routers have a gradient")


def teachers(rehearsal: Rehearsal) -> Proofs:
    """A teacher or reference model is the same after the step as before, in evaluation mode and without gradients."""
    for place, observed in rehearsal.trained():
        if observed.teacher is None:
            continue
        wrong = None
        if observed.teacher_before != observed.teacher_after:
            wrong = "the weights of the teacher changed while the step trained"
        elif observed.teacher_learns and place.section.objective != "draft":
            wrong = "parameters of the teacher ask for a gradient, so that it can be trained"
        elif observed.teacher_trains:
            wrong = "the teacher is in training mode, so that what it says is not what it knows"
        yield proved("teacher is frozen", place.label, wrong, "the teacher has the bits that it had")


def _frozen(observed: Observed, patterns: tuple[str, ...]) -> tuple[set[str], set[int]]:
    """The parameters and the expert numbers that the patterns freeze, from the patterns alone."""
    names: set[str] = set()
    experts: set[int] = set()
    for pattern in patterns:
        sliced = _SLICE.fullmatch(pattern)
        if sliced is None:
            names |= matching(observed.job.model, pattern, observed.roles)
            continue
        for part in sliced.group(1).split(","):
            first, _, last = part.partition("-")
            experts |= set(range(int(first), int(last or first) + 1))
    return names, experts


def _stacked(observed: Observed) -> list[str]:
    from ..model.parameters import expert_parameters

    return expert_parameters(observed.job.model)


def _moved(observed: Observed, name: str) -> bool:
    return name in observed.after and not torch.equal(observed.before[name], observed.after[name])
