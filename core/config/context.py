"""How far a context target can be reached, looked at when the plan is made."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from .objectives import OPTIONS
from .problems import Problems
from .schema import ContextSection, Experiment, StepSection

if TYPE_CHECKING:
    from ..model.builder import Positions

KeyPath = tuple[str, ...]


def ntk_base(base: float, factor: float, dim: int) -> float:
    """The rotary base that stretches the slowest of ``dim``/2 frequencies ``factor`` times and leaves the fastest:
    base * factor^(dim/(dim-2)) (NTK-aware scaling, in Peng 2023, 2309.00071)."""
    return float(base * factor ** (dim / (dim - 2)))


def implied_factor(theta: float, base: float, dim: int) -> float:
    """How many times a base of ``theta`` stretches the slowest frequency: the inverse of ``ntk_base``."""
    return float((theta / base) ** ((dim - 2) / dim))


def check_context(experiment: Experiment, first: Positions | None, problems: Problems) -> None:
    """Note context settings without effect, and steps on more tokens than the model has positions by then.

    ``first`` is what the model is built with; where its component does not say, lengths are checked when the step
    begins. A context grows from step to step and is never shortened. ``abf`` reaches the length at which ``ntk`` would
    give the same base.
    """
    reached, factor = first.length if first is not None else 0, 1.0
    for name, phase in experiment.phases.items():
        for step, section in phase.steps.items():
            path, context = ("phases", name, "steps", step), section.context
            if not _has_effect(section, path, problems):
                continue
            if context.rope != "keep":
                wanted = _factor(context, path, first, problems)
                if wanted is None:
                    continue
                if wanted < factor:
                    label = ".".join((*path, "context"))
                    text = (
                        f"{label} stretches {wanted:.3g} times, but an earlier step reaches {factor:.3g} times already"
                    )
                    problems.add((*path, "context"), f"{text}; a context never shrinks, so remove it or raise it.")
                factor = max(factor, wanted)
            if first is None:
                continue
            reach = reached if context.rope == "keep" else int(first.length * factor)
            _check_lengths(section, path, first.length, reach, problems)
            reached = max(reached, section.sequence_length or 0 if context.rope == "abf" else reach)


def _has_effect(section: StepSection, path: KeyPath, problems: Problems) -> bool:
    """Note every key of the context that would do nothing; false where nothing is left to check."""
    context, here = section.context, (*path, "context")
    label = ".".join(here)
    if context.rope == "keep":
        for key, default in (("factor", 1.0), ("theta", None)):
            if getattr(context, key) != default:
                text = f"{label}.{key} has no effect while rope is keep; set rope to ntk, abf, yarn or linear."
                problems.add((*here, key), text)
        return True
    if section.objective in OPTIONS:
        text = (
            f"{label} has no effect in a step with objective: {section.objective}, which trains no weights; remove it."
        )
        problems.add(here, text)
        return False
    if context.rope == "abf":
        if context.factor != 1.0:
            text = f"{label}.factor has no effect with rope: abf, which sets the base to theta; remove it."
            problems.add((*here, "factor"), text)
        return context.theta is not None  # the check of objectives asks for it
    if context.theta is not None:
        text = f"{label}.theta has no effect with rope: {context.rope}, which stretches by factor; remove it."
        problems.add((*here, "theta"), text)
    if context.factor <= 1.0:
        text = f"{label}: rope {context.rope} by a factor of {context.factor:g} changes nothing; give one such as 2."
        problems.add(here, text)
        return False
    return True


def _factor(context: ContextSection, path: KeyPath, first: Positions | None, problems: Problems) -> float | None:
    """How many times the first length these settings reach; None where that cannot be said."""
    if context.rope != "abf":
        return context.factor
    if context.theta is None or first is None:
        return None
    if context.theta <= first.base:
        here = (*path, "context", "theta")
        text = f"{'.'.join(here)} is {context.theta:g}, but the model's rotary base is {first.base:g} already"
        problems.add(here, f"{text}; give a larger one.")
        return None
    return implied_factor(context.theta, first.base, first.dim)


def _check_lengths(section: StepSection, path: KeyPath, first: int, reach: int, problems: Problems) -> None:
    rope, label = section.context.rope, ".".join(path)
    for key, length in _lengths(section):
        if length <= reach:
            continue
        if rope == "keep":
            cure = f"set context to, say, {{rope: ntk, factor: {-(-length // first)}}}"
            text = f"{label}.{key} is {length}, but the model has {reach} positions by then; {cure}"
        else:
            knob = "theta" if rope == "abf" else "factor"
            text = f"{label}.{key} is {length}, but context.rope {rope} with this {knob} reaches {reach}; raise {knob}"
        problems.add((*path, *key.split(".")), f"{text}, or lower {key}.")


def _lengths(section: StepSection) -> Iterator[tuple[str, int]]:
    """The lengths in tokens that a step trains on, by key."""
    if section.sequence_length is not None:
        yield "sequence_length", section.sequence_length
    if section.replay.sequence_length is not None:
        yield "replay.sequence_length", section.replay.sequence_length
