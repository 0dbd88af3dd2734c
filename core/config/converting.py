"""What an experiment says of conversions, quantizers, teachers and fresh models, held against each other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ...registry.errors import ConfigError, PhasegateError
from ...registry.suggest import did_you_mean, listing
from .conversions import CAUSAL, CONVERSIONS, DistillOptions, GrowOptions, check_schedule
from .problems import Problems
from .schema import Experiment, QuantizerSection, Ref, StepSection

if TYPE_CHECKING:
    from ...registry.registry import Registry

KeyPath = tuple[str, ...]


def check_conversions(experiment: Experiment, problems: Problems) -> None:
    """Note keys of conversions, quantizers and fresh models that could have no effect, and steps that come too
    early."""
    start = experiment.model.options.get("start")
    dense, quantized = start == "dense", experiment.model.quantizer is not None
    if dense and quantized:
        text = (
            "model.quantizer quantizes experts from the first step on, but a model with start: dense has none yet; set "
            "the quantizer of a step behind the upcycling instead."
        )
        problems.add(("model", "quantizer"), text)
        quantized = False
    earlier: list[str] = []
    for name, phase in experiment.phases.items():
        for step, section in phase.steps.items():
            path = ("phases", name, "steps", step)
            label = ".".join(path)
            if section.fresh is not None:
                dense = section.fresh.options.get("start", start) == "dense"
                quantized = experiment.model.quantizer is not None and not dense
            _keys(section, path, problems)
            _teacher(section, path, earlier, problems)
            if section.quantizer is not None and quantized:
                text = f"{label}.quantizer: all experts are quantized by then; remove it, or the quantizer before it."
                problems.add((*path, "quantizer"), text)
            quantized = quantized or section.quantizer is not None
            if section.objective == "upcycle" and not dense and experiment.model.use.rpartition(":")[2] == "moe":
                text = (
                    f"{label} upcycles a dense model, but it has experts by then; set model.start: dense, or remove it."
                )
                problems.add((*path, "objective"), text)
            if section.objective in {"grow", "reroute"} and dense:
                text = f"{label}: a {section.objective} step needs a model with experts; put an upcycle step before it."
                problems.add((*path, "objective"), text)
            if section.quantizer is not None and dense:
                text = f"{label}.quantizer needs a model with experts; put an upcycle step before it."
                problems.add((*path, "quantizer"), text)
            dense = dense and section.objective != "upcycle"
        earlier += [name, *(f"{name}/{step}" for step in phase.steps)]


def _teacher(section: StepSection, path: KeyPath, earlier: Sequence[str], problems: Problems) -> None:
    """Note a teacher that is no earlier stage."""
    teacher = section.options.get("teacher", DistillOptions().teacher)
    if section.objective != "distill" or teacher in earlier or (teacher == "parent" and earlier):
        return
    label = ".".join((*path, "options", "teacher"))
    if teacher == "parent":
        text = f"{label}: the phase comes first, so that there is no model to learn from; put one before it."
    else:
        known = [*earlier, *(["parent"] if earlier else [])]
        text = f"{label}: no stage before this phase is called '{teacher}'.{did_you_mean(str(teacher), known)}"
        text = f"{text} Stages: {listing(known)}."
    problems.add((*path, "options", "teacher"), text)


def check_routers(experiment: Experiment, registry: Registry, experts: int, problems: Problems) -> None:
    """Let every router whose options know how many experts they fit (``check``) say so, for as many as the model has by
    then; ``experts`` are those of the experiment's model."""

    def check(path: KeyPath, ref: Ref) -> None:
        try:
            config = registry.config("router", ref.use, ref.options)
            if hasattr(config, "check"):
                config.check(experts)
        except PhasegateError as error:
            # A growth is to blame for a router of the model that no longer fits.
            own = ("options", *error.place) if path[-1] == "router" else ()
            problems.add((*path, *own), f"{'.'.join(path)}: {error}")

    def check_top_k(path: KeyPath, section: StepSection) -> None:
        top_k = section.options.get("top_k")
        if isinstance(top_k, int) and top_k > experts:
            text = (
                f"{'.'.join((*path, 'options', 'top_k'))}: a token cannot pass {top_k} of {experts} experts; lower it."
            )
            problems.add((*path, "options", "top_k"), text)

    router = experiment.model.router
    for name, phase in experiment.phases.items():
        for step, section in phase.steps.items():
            path = ("phases", name, "steps", step)
            if section.objective == "upcycle":
                experts = section.options.get("experts") or experts
                check_top_k(path, section)
            elif section.objective == "grow":
                experts *= int(section.options.get("copies", GrowOptions().copies))
                check_top_k(path, section)
                check((*path, "options"), router)
            elif section.objective == "reroute" and section.router is not None:
                router = section.router
                check((*path, "router"), router)


def _keys(section: StepSection, path: KeyPath, problems: Problems) -> None:
    label, objective = ".".join(path), section.objective
    article = "an" if objective[0] in "aou" else "a"
    if objective == "reroute" and section.router is None:
        problems.add(path, f"{label} puts another router in place but names none; set router, such as torus.")
    if objective != "reroute" and section.router is not None:
        text = f"{label}.router has no effect in {article} {objective} step; set objective: reroute, or remove it."
        problems.add((*path, "router"), text)
    if section.fresh is not None and objective not in CAUSAL:
        text = f"{label}.fresh begins with a new model, which only a causal step can train; remove it."
        problems.add((*path, "fresh"), text)
    if objective in CONVERSIONS:
        for key, given in (
            ("freeze", section.freeze),
            ("losses", section.losses),
            ("batches", section.batches.mixture),
        ):
            if given:
                text = f"{label}.{key} has no effect in {article} {objective} step, which trains nothing; remove it."
                problems.add((*path, key), text)
    if section.quantizer is None:
        return
    if section.quantizer.order == "soft" and section.quantizer.shares != QuantizerSection(use="").shares:
        text = f"{label}.quantizer.shares have no effect with order: soft, which blends all weights; remove them."
        problems.add((*path, "quantizer", "shares"), text)
    if objective in CONVERSIONS or objective in {"anchor", "draft", "probes"}:
        text = f"{label}.quantizer has no effect in {article} {objective} step, which trains no expert; remove it."
        problems.add((*path, "quantizer"), text)
    try:
        check_schedule(section.quantizer.events, section.quantizer.shares, f"{label}.quantizer")
    except ConfigError as error:
        problems.add((*path, "quantizer", *error.place), str(error))
