"""What a study is: its experiment, its space, its scores, and how it is searched."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ...registry.components import PhaseSpec
from ...registry.errors import ConfigError, blaming
from ...registry.suggest import did_you_mean, listing
from ..config.schema import Experiment, ScoreSection, StudySection
from .choosing import Choice, choose
from .space import Curriculum, SearchSpace

if TYPE_CHECKING:
    from ...registry.registry import Registry
    from ..run.plan import Plan


@dataclass(frozen=True, slots=True, kw_only=True)
class Definition:
    """A study, resolved: nothing of it is open any more, and nothing has been run."""

    experiment: Experiment
    section: StudySection
    space: SearchSpace
    choice: Choice


def define(plan: Plan) -> Definition:
    """Return the study that a plan's experiment describes; ``ConfigError`` for what it cannot mean."""
    experiment, section = plan.experiment, plan.experiment.study
    for name, score in section.scores.items():
        _check_score(name, score, experiment)
    for key in section.set:
        _check_set(key, "study", "set", key)
    with blaming("study", "space"):
        component = plan.registry.build("search-space", section.space.use, section.space.options)
        space: SearchSpace = component.space(curriculum_of(experiment, plan.registry))
    for row in space.rows:
        for phase in row.phases:
            if phase not in experiment.phases:
                raise ConfigError(
                    f"row {row.name} of the study names a phase '{phase}' that the experiment does not have."
                    f"{did_you_mean(phase, experiment.phases)} Phases: {listing(experiment.phases)}."
                ).within("study", "space")
        if not row.order or len(set(row.phases)) < len(row.phases):
            raise ConfigError(
                f"row {row.name} of the study has the order '{row.order}', which names a phase twice."
            ).within("study", "space")
        for key in row.set:
            _check_set(key, "study", "space")
    return Definition(experiment=experiment, section=section, space=space, choice=choose(section, space))


def curriculum_of(experiment: Experiment, registry: Registry) -> Curriculum:
    """Return what a search space may know of an experiment."""
    specs = {name: registry.get("phase", phase.use).component for name, phase in experiment.phases.items()}
    phases = {name: spec for name, spec in specs.items() if isinstance(spec, PhaseSpec)}
    return Curriculum(
        phases=tuple(phases),
        uses={name: spec.name for name, spec in phases.items()},
        requires={name: spec.requires for name, spec in phases.items()},
        provides={name: spec.provides for name, spec in phases.items()},
    )


def _check_score(name: str, score: ScoreSection, experiment: Experiment) -> None:
    label = f"study.scores.{name}"
    if not score.of:
        raise ConfigError(f"{label} is made of no metric; give it at least one under of, with use and metric.").within(
            "study", "scores", name
        )
    if score.refit is None:
        return
    phase, _, step = score.refit.partition("/")
    steps = [f"{one}/{label}" for one, section in experiment.phases.items() for label in section.steps]
    if phase not in experiment.phases or step not in experiment.phases[phase].steps:
        raise ConfigError(
            f"{label}.refit names '{score.refit}', which is no step.{did_you_mean(score.refit, steps)} "
            f"Steps: {listing(steps)}."
        ).within("study", "scores", name, "refit")
    objective = experiment.phases[phase].steps[step].objective
    if objective != "probes":
        text = (
            f"{label}.refit names {score.refit}, which has objective: {objective}; only a probes step can be refitted."
        )
        raise ConfigError(text).within("study", "scores", name, "refit")


def _check_set(key: str, *place: str) -> None:
    first = key.split(".")[0]
    if first in {"order", "seed", "study", "run", "name"}:
        raise ConfigError(
            f"a study cannot set '{key}': {_OWN.get(first, 'it is the same for all of its runs')}."
        ).within(*place)


_OWN = {"order": "its space says the orders", "seed": "study.seeds says the seeds"}
