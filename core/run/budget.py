"""The budget: tokens of every phase, what drives its cost, and FLOPs, hours and money on stated hardware."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from ...registry.components import PhaseSpec
from ..config.schema import Experiment, PhaseSection
from .hardware import Machine
from .published import CLAIMS, PUBLISHED, Claim, Published, claims_record, published_record
from .work import work_of

#: FLOPs of one training token of a phase's step, by the names of both, in a row of so many tokens.
StepToken = Callable[[str, str, int], float]

#: What drives the cost of a phase that does not say so itself, by what its steps do; the first that applies.
DRIVERS: Mapping[str, str] = {
    "probes": "expert verification",
    "contrast": "red-team",
    "anchor": "red-team",
    "dpo": "annotation",
    "sft": "annotation",
}

ALWAYS_UNCOUNTED = ("gates", "validation after a transition", "extensions of a phase")


@dataclass(frozen=True, slots=True, kw_only=True)
class PhaseBudget:
    """One phase: tokens and their share of all, the driver of its cost, FLOPs, hours on the machine, US dollars, and
    the first paper's row where that paper has this phase."""

    phase: str
    tokens: int
    share: float
    driver: str
    training: float
    inference: float
    hours: float
    cost: float
    published: Published | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """The budget of an experiment on a machine; ``uncounted`` lists in words what the figures leave out, ``claims`` is
    the compute table of the second paper where the experiment has a phase of it."""

    machine: Machine
    phases: Mapping[str, PhaseBudget]
    uncounted: tuple[str, ...]
    claims: tuple[Claim, ...] = ()

    @property
    def tokens(self) -> int:
        """Return the training tokens of all phases."""
        return sum(phase.tokens for phase in self.phases.values())

    @property
    def flops(self) -> float:
        """Return the FLOPs of training and counted inference."""
        return sum(phase.training + phase.inference for phase in self.phases.values())

    @property
    def missing(self) -> tuple[Published, ...]:
        """Return the first paper's rows of phases that the experiment does not have, if it has one of that paper."""
        had = {phase.published.phase for phase in self.phases.values() if phase.published is not None}
        return tuple(row for row in PUBLISHED if row.phase not in had) if had else ()


def make_budget(
    experiment: Experiment, machine: Machine, specs: Mapping[str, PhaseSpec], per_token: StepToken
) -> Budget:
    """Return the budget of a complete experiment on a machine; ``specs`` are its phases' components by phase name."""
    work = {
        name: [work_of(step, experiment, partial(per_token, name, key)) for key, step in section.steps.items()]
        for name, section in experiment.phases.items()
    }
    total = sum(part.tokens for parts in work.values() for part in parts)
    published = {row.phase: row for row in PUBLISHED}
    phases = {}
    for name, section in experiment.phases.items():
        tokens = sum(part.tokens for part in work[name])
        training, inference = sum(part.training for part in work[name]), sum(part.inference for part in work[name])
        phases[name] = PhaseBudget(
            phase=name,
            tokens=tokens,
            share=tokens / total if total else 0.0,
            driver=specs[name].cost_driver or driver_of(section),
            training=training,
            inference=inference,
            hours=machine.hours(training + inference),
            cost=machine.cost(training + inference),
            published=published.get(specs[name].name),
        )
    said = dict.fromkeys(part.uncounted for parts in work.values() for part in parts if part.uncounted)
    claimed = {spec.name for spec in specs.values()} & {claim.phase for claim in CLAIMS}
    return Budget(
        machine=machine,
        phases=phases,
        uncounted=(*said, *ALWAYS_UNCOUNTED),
        claims=CLAIMS if claimed else (),
    )


def driver_of(section: PhaseSection) -> str:
    """Return what drives the cost of a phase by what its steps do, in the paper's words."""
    steps = section.steps.values()
    if any(step.context.rope != "keep" for step in steps):
        return "long-context curation"
    objectives = {step.objective for step in steps}
    return next((driver for objective, driver in DRIVERS.items() if objective in objectives), "compute")


def budget_record(budget: Budget) -> dict[str, Any]:
    """Return the budget as JSON data."""
    machine = budget.machine
    papers: dict[str, Any] = {}
    if any(phase.published for phase in budget.phases.values()):
        papers["paper"] = published_record()
    if budget.claims:
        papers["claims"] = claims_record(budget.claims)
    return {
        "hardware": {
            "device": machine.device.name,
            "devices": machine.devices,
            "precision": machine.precision,
            "peak_flops_per_second": machine.peak,
            "peak_source": machine.device.source,
            "utilization": machine.utilization,
            "flops_per_second": machine.rate,
            "price_per_device_hour": machine.price,
            "price_assumed": machine.assumed,
        },
        "phases": [
            {
                "phase": phase.phase,
                "tokens": phase.tokens,
                "share": phase.share,
                "cost_driver": phase.driver,
                "training_flops": phase.training,
                "inference_flops": phase.inference,
                "hours": phase.hours,
                "cost": phase.cost,
            }
            for phase in budget.phases.values()
        ],
        "tokens": budget.tokens,
        "flops": budget.flops,
        "hours": machine.hours(budget.flops),
        "cost": machine.cost(budget.flops),
        "not_counted": list(budget.uncounted),
        **papers,
    }
