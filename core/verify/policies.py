"""Proofs of policies: a failed or undecided gate leads to what the experiment says."""

from __future__ import annotations

from pathlib import Path

from ..config.schema import PhaseSection
from ..run.attempt import extended_steps, first_attempt, next_attempt
from ..run.plan import Plan
from ..run.policy import Action, decide
from .proof import Proofs, proved


def policies(plan: Plan) -> Proofs:
    """Every phase repeats as often as it may and then does what ``then`` says; an extension halves the rate."""
    for stage in plan.stages:
        section = stage.section
        policy, extendable = section.policy, bool(extended_steps(section))
        first = decide(policy, "fail", 0, extendable=extendable).action
        last = decide(policy, "fail", policy.extensions, extendable=extendable).action
        wrong = None
        if policy.on_fail in {"advance", "stop"} and first != policy.on_fail:
            wrong = f"on_fail is {policy.on_fail}, but a failed gate leads to {first}"
        elif policy.extensions and extendable and first != policy.on_fail:
            wrong = f"on_fail is {policy.on_fail}, but the first failed gate leads to {first}"
        elif policy.on_fail in {"extend", "rollback"} and last != ("advance" if policy.then == "advance" else "stop"):
            wrong = f"then is {policy.then}, but after the last repeat a failed gate leads to {last}"
        elif (undecided := decide(policy, "undecided", 0, extendable=extendable).action) != policy.on_undecided and (
            policy.on_undecided in {"advance", "stop"} or (policy.extensions and extendable)
        ):
            wrong = f"on_undecided is {policy.on_undecided}, but an undecided gate leads to {undecided}"
        elif first in {"extend", "rollback"}:
            wrong = _slower(section, first)
        yield proved("policy decides", stage.name, wrong, f"a failed gate leads to {first}, and at last to {last}")


def _slower(section: PhaseSection, action: Action) -> str | None:
    again = next_attempt(section, first_attempt(section, Path()), action, Path())
    for name, step in again.steps.items():
        share = section.policy.extend_by if action == "extend" else 1.0
        if step.steps != max(1, round(section.steps[name].steps * share)):
            return f"extend_by is {share:g}, but the step {name} would go on for {step.steps} steps"
    return None
