"""Options of a contrast step: in what shares it draws the kinds of its view, and which of them are its task."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from ...registry.errors import PhasegateError
from ...registry.options import parse
from .problems import Problems
from .schema import BatchSection, Experiment


@dataclass(frozen=True, slots=True, kw_only=True)
class ContrastOptions:
    """``shares`` gives every kind of the view its share of the rows that a step draws; a kind that it does not name
    gets none. Without it each kind is drawn as often as the data has it. ``task`` names the kinds whose answers the
    task loss is a mean over."""

    shares: Mapping[str, float] = field(default_factory=dict)
    task: tuple[str, ...] = ("general",)


def contrast_options(options: Mapping[str, object], label: str) -> ContrastOptions:
    """Return the options of a contrast step; ``ConfigError`` for one that it does not take."""
    found: ContrastOptions = parse(ContrastOptions, options, f"{label} (contrast)")
    return found


def check_contrast(experiment: Experiment, problems: Problems) -> None:
    """Note options that a contrast step does not take, shares that no step can draw, and batches, which it ignores."""
    for name, phase in experiment.phases.items():
        for step, section in phase.steps.items():
            if section.objective != "contrast":
                continue
            path = ("phases", name, "steps", step)
            label = ".".join(path)
            try:
                shares = contrast_options(section.options, label).shares
            except PhasegateError as error:
                problems.add((*path, "options", *error.place), str(error))
                continue
            for kind, share in shares.items():
                if not share >= 0:
                    here = ".".join((*path, "options", "shares", kind))
                    problems.add((*path, "options", "shares", kind), f"{here} must be at least 0, not {share:g}.")
                if section.kinds and kind not in section.kinds:
                    problems.add(
                        (*path, "options", "shares", kind),
                        f"{label} gives a share to the kind '{kind}', which its kinds leave out.",
                    )
            if shares and not sum(shares.values()) > 0:
                text = f"{label}.options.shares gives every kind a share of 0; at least one must be above 0."
                problems.add((*path, "options", "shares"), text)
            if section.batches != BatchSection():
                text = f"{label}.batches has no effect in a contrast step, which draws by kind; set options.shares."
                problems.add((*path, "batches"), text)
