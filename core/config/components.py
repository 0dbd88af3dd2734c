"""Checking that every component an experiment names exists, takes the options it is given, and offers what is asked."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import fields
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

from ...registry.components import GateSpec, LossSpec, SourceSpec
from ...registry.errors import PhasegateError
from ...registry.suggest import did_you_mean, listing
from .problems import Problems
from .schema import (
    CriterionSection,
    Experiment,
    LossSection,
    MetricSection,
    ModelSection,
    PhaseSection,
    QuantizerSection,
    Ref,
    StudySection,
)

if TYPE_CHECKING:
    from ...registry.registry import Registry

KeyPath = tuple[str, ...]
Section = Ref | LossSection | CriterionSection | MetricSection | ModelSection | PhaseSection | QuantizerSection


def references(experiment: Experiment) -> Iterator[tuple[str, KeyPath, Section]]:
    """Yield every component that the experiment names: kind, path of its section, section."""
    yield "model", ("model",), experiment.model
    yield "router", ("model", "router"), experiment.model.router
    if experiment.model.mixer != ModelSection().mixer:
        yield "mixer", ("model", "mixer"), experiment.model.mixer
    if experiment.model.quantizer is not None:
        yield "quantizer", ("model", "quantizer"), experiment.model.quantizer
    for name, source in experiment.data.sources.items():
        yield "source", ("data", "sources", name), source
    for name, phase in experiment.phases.items():
        path = ("phases", name)
        yield "phase", path, phase
        for step, section in phase.steps.items():
            for label, loss in section.losses.items():
                yield "loss", (*path, "steps", step, "losses", label), loss
            if section.anchor is not None:
                yield "anchor", (*path, "steps", step, "anchor"), section.anchor
            if section.quantizer is not None:
                yield "quantizer", (*path, "steps", step, "quantizer"), section.quantizer
            if section.router is not None:
                yield "router", (*path, "steps", step, "router"), section.router
            if section.fresh is not None:
                for kind, ref in (("mixer", section.fresh.mixer), ("router", section.fresh.router)):
                    if ref is not None:
                        yield kind, (*path, "steps", step, "fresh", kind), ref
        for kind, criteria in (("entry", phase.entry), ("gates", phase.gates)):
            for label, criterion in criteria.items():
                yield "gate", (*path, kind, label), criterion
    if experiment.study != StudySection():  # an experiment that says nothing of studies needs no search space
        yield "search-space", ("study", "space"), experiment.study.space
    for name, score in experiment.study.scores.items():
        for label, metric in score.of.items():
            yield "gate", ("study", "scores", name, "of", label), metric


def check_references(experiment: Experiment, registry: Registry, problems: Problems) -> None:
    """Note unknown components, options they do not take, metrics they do not report and views no source gives."""
    views: set[str] = set()
    for kind, path, section in references(experiment):
        found = check_reference(kind, path, section, registry, problems)
        if isinstance(found, GateSpec) and isinstance(section, CriterionSection | MetricSection):
            _metric(found, path, section, problems)
        elif isinstance(found, LossSpec):
            objective = experiment.phases[path[1]].steps[path[3]].objective
            if found.objectives and objective not in found.objectives:
                text = f"loss {section.use} acts in steps with objective: {' or '.join(found.objectives)}"
                problems.add(path, f"{text}, and {'.'.join(path[:4])} has objective: {objective}; remove it there.")
        elif isinstance(found, SourceSpec):
            views.update(found.views)
    if not views:
        return
    for name, phase in experiment.phases.items():
        for step, work in phase.steps.items():
            if work.view not in views:
                here = ("phases", name, "steps", step, "view")
                text = f"no source of data.sources gives the view '{work.view}'.{did_you_mean(work.view, views)}"
                problems.add(here, f"{text} Views: {listing(views)}.")
            for number, view in enumerate(work.replay.views):
                if view not in views:
                    place = ("phases", name, "steps", step, "replay", "views", str(number))
                    text = f"no source of data.sources gives the view '{view}'.{did_you_mean(view, views)}"
                    problems.add(place, f"{text} Views: {listing(views)}.")


def check_reference(kind: str, path: KeyPath, section: Section, registry: Registry, problems: Problems) -> Any:
    """Return the spec of one component, or None after noting why it cannot be used as the section says."""
    try:
        entry = registry.get(kind, section.use)
    except PhasegateError as error:
        problems.add((*path, "use"), str(error))
        return None
    try:
        registry.config(kind, section.use, section.options)
    except PhasegateError as error:
        problems.add((*path, "options", *error.place), f"{error}{_hint(error, section)}")
    return entry.component


def _hint(error: PhasegateError, section: Section) -> str:
    """Return a hint if a key of the section itself may have been meant by an unknown option."""
    text = str(error)
    if "has no option" not in text or "Did you mean" in text or not error.place:
        return ""
    return did_you_mean(error.place[0], {field.name for field in fields(section)} - {"options"})


def _metric(spec: GateSpec, path: KeyPath, criterion: CriterionSection | MetricSection, problems: Problems) -> None:
    if spec.metrics and not any(_overlap(criterion.metric, known) for known in spec.metrics):
        text = f"gate {criterion.use} reports no metric '{criterion.metric}'."
        near = did_you_mean(criterion.metric, spec.metrics)
        problems.add((*path, "metric"), f"{text}{near} Metrics: {listing(spec.metrics)}.")
    for index, skipped in enumerate(criterion.skip if isinstance(criterion, CriterionSection) else ()):
        if not _overlap(skipped, criterion.metric):
            problems.add(
                (*path, "skip", str(index)),
                f"{'.'.join(path)} skips '{skipped}', which its metric '{criterion.metric}' does not cover.",
            )


def _overlap(left: str, right: str) -> bool:
    """Tell whether two names, each of which may hold ``*``, can mean the same metric."""
    return fnmatchcase(left.replace("*", "x"), right) or fnmatchcase(right.replace("*", "x"), left)


def providers_of(registry: Registry) -> Mapping[str, list[str]]:
    """Return, for each thing that phases provide, the phase components that do."""
    found: dict[str, list[str]] = {}
    for entry in registry:
        for thing in getattr(entry.component, "provides", ()):
            found.setdefault(thing, []).append(entry.name)
    return found
