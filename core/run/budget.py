"""The budget: tokens of every phase, what drives its cost, and FLOPs, hours and money on stated hardware."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ...registry.components import PhaseSpec
from ..config.schema import Experiment, PhaseSection
from .hardware import Machine
from .published import PUBLISHED, PUBLISHED_SHARES, PUBLISHED_TOKENS, Published
from .work import PerToken, work_of

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
    the paper's row where the paper has this phase."""

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
    """The budget of an experiment on a machine; ``uncounted`` lists in words what the figures leave out."""

    machine: Machine
    phases: Mapping[str, PhaseBudget]
    uncounted: tuple[str, ...]

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
        """Return the paper's rows of phases that the experiment does not have."""
        had = {phase.published.phase for phase in self.phases.values() if phase.published is not None}
        return tuple(row for row in PUBLISHED if row.phase not in had)


def make_budget(
    experiment: Experiment, machine: Machine, specs: Mapping[str, PhaseSpec], per_token: PerToken
) -> Budget:
    """Return the budget of a complete experiment on a machine; ``specs`` are its phases' components by phase name."""
    work = {
        name: [work_of(step, experiment, per_token) for step in section.steps.values()]
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
    return Budget(machine=machine, phases=phases, uncounted=(*said, *ALWAYS_UNCOUNTED))


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
        "paper": {
            "phases": [
                {
                    "phase": row.phase,
                    "tokens": row.tokens,
                    "share": row.share,
                    "share_as_printed": round(row.printed / 100, 6),
                    "cost_driver": row.driver,
                }
                for row in PUBLISHED
            ],
            "tokens": PUBLISHED_TOKENS,
            "shares_as_printed_sum_to": round(PUBLISHED_SHARES / 100, 6),
        },
    }
