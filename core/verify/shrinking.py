"""A plan made small: the same phases, steps, terms and components on a few optimiser steps and rows of data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from ..config.schema import CriterionSection, Experiment, PhaseSection, PolicySection, StepSection
from ..run.plan import Plan

#: Optimiser steps of every step; it saves after the second, so that a resume has one left.
STEPS = 3
_SAVE_EVERY = 2 / STEPS

#: Documents that a gate looks at.
DOCUMENTS = 4

#: Whatever a criterion says of a model that has hardly been trained, the next phase is to be seen.
_GOES_ON = PolicySection(on_fail="advance", on_undecided="advance", extensions=0)

#: What lets the data be read in a second: rows of every domain and view, and documents for the tokenizer.
DATA = ("data.rows_per_domain=120", "tokenizer.documents=500")

#: Options that say how much a step that fits or samples something looks at, and what is enough to see it act.
_AMOUNTS: Mapping[str, Mapping[str, int]] = {
    "draft": {"samples": 16, "sample_tokens": 4},
    "probes": {"questions": 48},
}


def shrink(plan: Plan) -> Plan:
    """Return the plan with few optimiser steps everywhere; ``Plan.experiment`` and the stages change alike."""
    phases = {stage.name: small_phase(stage.section) for stage in plan.stages}
    phases |= _with_one_gate(plan, phases)
    run = replace(plan.experiment.run, logging_steps=1, save_every=_SAVE_EVERY, report_to=())
    experiment: Experiment = replace(plan.experiment, phases=phases, run=run)
    stages = tuple(
        replace(
            stage,
            section=phases[stage.name],
            earlier=tuple(small_step(step) for step in stage.earlier),
            cached=False,
        )
        for stage in plan.stages
    )
    return replace(plan, experiment=experiment, stages=stages)


def _with_one_gate(plan: Plan, phases: Mapping[str, PhaseSection]) -> dict[str, PhaseSection]:
    """Give one phase one criterion, so that a gate is judged in the course of a phase at least once."""
    for stage in plan.stages:
        for name, criterion in stage.section.gates.items():
            if criterion.against is None:
                gates = {name: small_criterion(criterion)}
                return {stage.name: replace(phases[stage.name], gates=gates, policy=_GOES_ON)}
    return {}


def small_criterion(criterion: CriterionSection) -> CriterionSection:
    """Return the criterion over few documents."""
    return replace(criterion, documents=_least(criterion.documents, DOCUMENTS))


def small_phase(section: PhaseSection) -> PhaseSection:
    """Return the phase with small steps and without criteria, which are proved one by one."""
    steps = {name: small_step(step) for name, step in section.steps.items()}
    bump = replace(section.bump, rows=4, every=1.0)
    return replace(section, steps=steps, entry={}, gates={}, bump=bump)


def small_step(step: StepSection) -> StepSection:
    """Return the step with few optimiser steps; everything that decides what one of them does stays."""
    amounts = {key: _least(step.options.get(key), least) for key, least in _AMOUNTS.get(step.objective, {}).items()}
    return replace(step, steps=min(step.steps, STEPS), options={**step.options, **amounts})


def _least(given: Any, least: int) -> int:
    return min(given, least) if isinstance(given, int) else least
