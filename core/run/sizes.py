"""How large the model is in the course of a curriculum: dense until an upcycling, with more experts after growth."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from ...registry.errors import ConfigError
from ...registry.options import named, parse
from ..config.conversions import GrowOptions, UpcycleOptions, refreshed
from ..config.filling import explain
from ..config.schema import Experiment, ModelSection, StepSection
from ..model.builder import ModelFacts

#: Makes the model builder of an experiment.
Build = Callable[[Experiment], Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Form:
    """A model as a curriculum has made it: what ``model`` builds, or that with so many ``experts`` (None: as built), of
    which a token passes ``top_k`` (None: as built). ``place`` is where it was said that changed ``model``,
    and ``own`` the options that were given there."""

    model: ModelSection
    experts: int | None = None
    top_k: int | None = None
    place: tuple[str, ...] = field(default=(), compare=False)
    own: tuple[str, ...] = field(default=(), compare=False)


def forms_of(experiment: Experiment) -> dict[str, tuple[Form, ...]]:
    """Return for every phase the form that it begins with, and after it the form that each of its steps ends with."""
    form, found = Form(model=experiment.model), {}
    for phase, section in experiment.phases.items():
        forms = [form]
        for name, step in section.steps.items():
            form = _after(form, step, experiment, ("phases", phase, "steps", name))
            forms.append(form)
        found[phase] = tuple(forms)
    return found


class Sizes:
    """Counts the models that an experiment trains, each form once for each length of rows.

    A builder that has no ``upcycled`` is believed to build what all phases train. Raises ``ConfigError`` for a model
    that cannot be built.
    """

    def __init__(self, experiment: Experiment, build: Build) -> None:
        self._experiment, self._build = experiment, build
        self._forms = forms_of(experiment)
        self._counted: list[tuple[Form, int, ModelFacts]] = []

    def per_token(self, phase: str, step: str, length: int) -> float:
        """Return the FLOPs of one training token of a step in a row of so many tokens."""
        place = list(self._experiment.phases[phase].steps).index(step)
        return self._facts(self._forms[phase][place + 1], length).flops_per_token

    def by_phase(self) -> Mapping[str, ModelFacts]:
        """Return what the model is at the end of every phase."""
        return {phase: self._facts(forms[-1], self._length) for phase, forms in self._forms.items()}

    def largest(self) -> ModelFacts:
        """Return the counts of the largest model on the way."""
        found = [self._facts(form, self._length) for forms in self._forms.values() for form in forms[1:] or forms]
        return max(found, key=lambda facts: facts.total)

    @property
    def _length(self) -> int:
        assert self._experiment.data.sequence_length is not None
        return self._experiment.data.sequence_length

    def _facts(self, form: Form, length: int) -> ModelFacts:
        for known, rows, facts in self._counted:
            if rows == length and known == form:
                return facts
        counted = self._count(form, length)
        self._counted.append((form, length, counted))
        return counted

    def _count(self, form: Form, length: int) -> ModelFacts:
        model = form.model
        if form.experts is not None and "num_experts" in model.options:
            model = replace(model, options={**model.options, "num_experts": form.experts})
        data = replace(self._experiment.data, sequence_length=length)
        experiment = replace(self._experiment, model=model, data=data)
        try:
            builder = self._build(experiment)
        except ConfigError as error:
            own = error.place or ("options", *named(form.own, str(error)))
            label = f"{'.'.join(form.place)}: " if form.place else ""
            raise ConfigError(f"{label}{error}").within(*(form.place or ("model",)), *own) from error
        if form.experts is None or not hasattr(builder, "upcycled"):
            built: ModelFacts = builder.facts()
            return built
        upcycled: ModelFacts = builder.upcycled(form.experts)
        if form.top_k is None:
            return upcycled
        passed = int(explain(experiment).values["num_experts_per_tok"])
        more = upcycled.by_role.get("experts", 0) * (form.top_k - passed) // form.experts
        return replace(upcycled, active=upcycled.active + more, flops_per_token=upcycled.flops_per_token + 6.0 * more)


def _after(form: Form, step: StepSection, experiment: Experiment, place: tuple[str, ...]) -> Form:
    """Return what a step makes of a model."""
    if step.fresh is not None:
        return Form(
            model=refreshed(experiment.model, step.fresh), place=(*place, "fresh"), own=tuple(step.fresh.options)
        )
    if step.objective == "upcycle":
        upcycle = parse(UpcycleOptions, step.options, ".".join(place))
        return replace(form, experts=upcycle.experts or _experts(form, experiment), top_k=upcycle.top_k)
    if step.objective == "grow":
        grow = parse(GrowOptions, step.options, ".".join(place))
        return replace(form, experts=grow.copies * _experts(form, experiment), top_k=grow.top_k or form.top_k)
    if step.objective == "reroute" and step.router is not None:
        return replace(form, model=replace(form.model, router=step.router), place=place)
    return form


def _experts(form: Form, experiment: Experiment) -> int:
    """Return how many experts a model has, or will have where it is still dense."""
    return form.experts or int(explain(replace(experiment, model=form.model)).values["num_experts"])
