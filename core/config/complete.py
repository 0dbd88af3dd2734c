"""Completing an experiment: recipes under what its author said, every component found, every contradiction named."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ...registry.components import PhaseSpec
from ...registry.errors import ConfigError, PhasegateError
from ...registry.options import named
from .checks import check_combinations
from .components import check_reference, check_references, providers_of
from .context import check_context
from .converting import check_routers
from .curriculum import check_comparisons, check_new_criteria, check_new_steps, check_requirements, ordered
from .filling import Filled, fill
from .layers import merge, settle
from .objectives import check_objectives
from .problems import Problems
from .ranges import check_numbers
from .schema import Experiment, PhaseSection
from .shaping import shape
from .typed import to_experiment

if TYPE_CHECKING:
    from ...registry.registry import Registry
    from .loading import Loaded

VIEWS = {
    "anchor": "refusal",
    "causal": "text",
    "contrast": "refusal",
    "distill": "text",
    "dpo": "preference",
    "draft": "chat",
    "grow": "text",
    "probes": "unknown",
    "reroute": "text",
    "sft": "chat",
    "upcycle": "text",
}


def complete(loaded: Loaded, registry: Registry) -> Experiment:
    """Return the experiment with nothing left open.

    Every phase component's recipe lies under the author's keys; phases stand in the order in which they run, and
    phases that ``order`` skips are gone; sizes that were not given follow from the dial. Raises ``ConfigError`` with
    up to ten sentences, each with its place; imports config classes and phase components, no model and no data.
    """
    problems = Problems(loaded.locate)
    said = loaded.experiment
    filled = fill(said, registry, problems)
    names = ordered(said.order, list(said.phases), problems)
    phases = {name: _phase(name, said.phases[name], loaded, registry, filled, problems) for name in names}
    problems.stop()
    raw = {**merge(loaded.raw, filled.layer), "phases": phases, "order": ">".join(names)}
    experiment = to_experiment(settle(Experiment, raw), problems)
    problems.stop()
    assert experiment is not None
    check_numbers(experiment, problems)
    check_combinations(experiment, problems)
    check_objectives(experiment, problems)
    check_references(experiment, registry, problems)
    specs = {name: registry.get("phase", phase.use).component for name, phase in experiment.phases.items()}
    lacking = check_requirements(
        {name: spec for name, spec in specs.items() if isinstance(spec, PhaseSpec) and not loaded.unmet},
        providers_of(registry),
        problems,
        ordered=said.order is not None,
    )
    check_comparisons(experiment, problems, lacking)
    problems.stop()
    experiment = _fill_lengths(experiment)
    _check_model(experiment, loaded, registry, filled, problems)
    problems.stop()
    return replace(experiment, plugins=said.plugins)


def phase_order(experiment: Experiment) -> tuple[str, ...]:
    """Return the names of a complete experiment's phases in the order in which they run."""
    return tuple(experiment.phases)


def _phase(
    name: str, section: PhaseSection, loaded: Loaded, registry: Registry, filled: Filled, problems: Problems
) -> dict[str, Any]:
    """Return one phase in the schema's shape: the recipe, and over it what was said."""
    said = loaded.raw["phases"][name] or {}
    path = ("phases", name)
    if check_reference("phase", path, section, registry, problems) is None:
        return dict(said)
    try:
        component = registry.build("phase", section.use, section.options)
    except PhasegateError:
        return dict(said)  # its options are wrong, and that is noted
    recipe = _recipe(section.use, component.recipe(filled.values)) if section.recipe else {}
    if section.recipe:
        check_new_steps(name, said.get("steps") or {}, recipe.get("steps") or {}, problems)
        for kind in ("entry", "gates"):
            check_new_criteria(name, kind, said.get(kind) or {}, recipe.get(kind) or {}, problems)
    merged: dict[str, Any] = merge(recipe, said)
    steps = {
        step: work and {"view": VIEWS.get(str(work.get("objective")), "text"), **work}
        for step, work in merged.get("steps", {}).items()
    }
    return {**merged, "steps": steps, "recipe": False}


def _recipe(use: str, recipe: Mapping[str, Any]) -> dict[str, Any]:
    """Return a recipe as plain data in the schema's shape; a recipe that is not is its plugin's mistake."""
    blame = Problems(lambda path: f"the recipe of phase {use}, {'.'.join(path) or 'top'}")
    try:
        plain = json.loads(json.dumps(recipe))
    except (TypeError, ValueError) as error:
        raise ConfigError(f"the recipe of phase {use} is not plain data: {error}; its plugin must mend it.") from error
    shaped = shape(PhaseSection, plain, (), blame)
    blame.stop()
    return settle(PhaseSection, shaped, use)


def _fill_lengths(experiment: Experiment) -> Experiment:
    length = experiment.data.sequence_length
    phases = {
        name: replace(
            phase,
            steps={
                step: replace(work, sequence_length=work.sequence_length or length)
                for step, work in phase.steps.items()
            },
        )
        for name, phase in experiment.phases.items()
    }
    return replace(experiment, phases=phases)


def _check_model(
    experiment: Experiment, loaded: Loaded, registry: Registry, filled: Filled, problems: Problems
) -> None:
    """Construct the model component, which allocates nothing, so that sizes that do not fit have a place; and hold the
    contexts of all steps against the positions that it starts with, if it says so."""
    from ..model.builder import ModelContext

    said = loaded.experiment.model.options
    context = ModelContext(
        registry=registry,
        router=experiment.model.router,
        derived=filled.values,
        vocab_size=filled.values["vocab_size"],
        sequence_length=filled.values["sequence_length"],
        base=loaded.base_folder,
        mixer=experiment.model.mixer,
        quantizer=experiment.model.quantizer,
    )
    try:
        builder = registry.build("model", experiment.model.use, experiment.model.options, context=context)
        check_context(experiment, builder.positions() if hasattr(builder, "positions") else None, problems)
        check_routers(experiment, registry, int(filled.values["num_experts"]), problems)
    except PhasegateError as error:
        text = str(error)
        problems.add(("model", *(error.place or ("options", *named(said, text)))), text)
