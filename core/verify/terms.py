"""Proofs of loss terms: each is in the gradient, with its weight; replay is a term too."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from ..config.schema import LossSection, StepSection, Weight
from .proof import Proof, Proofs, proved
from .rehearsal import Place, Rehearsal, is_trained
from .rerun import minus, norm, rerun, small

#: How far the gradient of a doubled weight may be from twice the term's, relative to it: fp32 cancels here.
_OFF = 0.02
#: Below this share of the gradient a term is looked at with a weight that is so much larger.
_SMALL, _LARGER = 1e-4, 1e5

IN_GRADIENT = "loss term is in the gradient"
WEIGHT = "loss weight counts"


def terms(rehearsal: Rehearsal, place: Place) -> Proofs:
    """Taking a loss term out changes the gradient, and doubling its weight doubles its part of it."""
    section = small(place.section)
    if not is_trained(section):
        return
    for name, loss in section.losses.items():
        assert not isinstance(loss.weight, Weight)
        others = {key: value for key, value in section.losses.items() if key != name}

        def weighted(weight: float, name: str = name, loss: LossSection = loss) -> StepSection:
            return replace(section, losses={**section.losses, name: replace(loss, weight=weight)})

        yield from _part(rehearsal, place, name, loss.weight, weighted, replace(section, losses=others))
    if section.replay.rows and section.replay.weight and place.earlier:

        def replayed(weight: float) -> StepSection:
            return replace(section, replay=replace(section.replay, weight=weight))

        # Without the rows themselves, terms that look at replayed rows alone would change as well.
        yield from _part(rehearsal, place, "replay", section.replay.weight, replayed, replayed(0.0))


def _part(
    rehearsal: Rehearsal,
    place: Place,
    name: str,
    weight: float,
    weighted: Callable[[float], StepSection],
    removed: StepSection,
) -> Proofs:
    subject = f"{place.label}: {name}"
    base, without = (rerun(rehearsal, place, section) for section in (weighted(weight), removed))
    part = minus(base.gradients, without.gradients)
    share = norm(part) / max(norm(base.gradients), 1e-30)
    if not share and not base.logs.get(f"loss/{name}", 0.0):
        reason = "its value is 0 on the rows of the rehearsal, so that it has nothing to pull at"
        yield Proof(name=IN_GRADIENT, subject=subject, outcome="skipped", reason=reason)
        return
    wrong = None
    if not share:
        wrong = "the gradient is the same without it: it is computed and not added, or has no gradient"
    yield proved(IN_GRADIENT, subject, wrong, f"{share:.1e} of the gradient")
    if wrong is not None:
        return
    if share < _SMALL:  # rounding would hide whether it is doubled
        weight *= _LARGER
        base = rerun(rehearsal, place, weighted(weight))
        part = minus(base.gradients, without.gradients)
    double = rerun(rehearsal, place, weighted(2 * weight))
    twice = {key: 2 * gradient for key, gradient in part.items()}
    off = norm(minus(minus(double.gradients, without.gradients), twice)) / max(2 * norm(part), 1e-30)
    wrong = None
    if off > _OFF:
        wrong = f"twice the weight gives another gradient than twice the term's (off by {off:.0%}): it is not used"
    yield proved(WEIGHT, subject, wrong, f"twice {weight:g} gives twice its gradient")
