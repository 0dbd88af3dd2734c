"""The plan: what a run will do, resolved and counted before anything is trained."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...registry.components import PhaseSpec
from ...registry.entries import Entry
from ...registry.errors import blaming
from ...registry.registry import Registry
from ..config.complete import complete, phase_order
from ..config.dial import Derived, derive
from ..config.filling import explain
from ..config.paths import is_there
from ..config.problems import Locator
from ..config.schema import Experiment, ModelSection, PhaseSection, StepSection
from ..data.corpus import Corpus
from ..data.mixture import check_domains
from ..model.builder import ModelContext, ModelFacts
from .budget import Budget, budget_record, make_budget
from .fingerprint import Recipe, content_digest, stage_recipe, to_plain, training_chain
from .hardware import Machine, machine_of
from .sizes import Sizes
from .work import WITHOUT_STEPS

if TYPE_CHECKING:
    from ...registry.plugins import Plugins
    from ..config.loading import Loaded
    from .store import Store


@dataclass(frozen=True, slots=True, kw_only=True)
class StagePlan:
    """One phase of the plan: what it is trained from, what it costs, whether the store already has it.

    ``chain`` is what its random streams derive from (see ``training_chain``).
    """

    name: str
    section: PhaseSection
    parent: str | None
    earlier: tuple[StepSection, ...]
    recipe: Recipe
    chain: str
    tokens: int
    flops: float
    cached: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A complete plan; ``sizes`` are counts of the model at the end of each phase, ``memory`` is an estimate of one
    process's peak in training, in bytes. ``locate`` says where a key of the experiment was written."""

    experiment: Experiment
    stages: tuple[StagePlan, ...]
    components: Mapping[str, Entry]
    provenance: Mapping[str, Any]
    derived: Derived
    sizes: Mapping[str, ModelFacts]
    memory: int
    budget: Budget
    corpus: Corpus
    registry: Registry = field(repr=False)
    plugins: Plugins = field(repr=False)
    source: Path | None = None
    locate: Locator = field(default="".join, repr=False, compare=False)

    @property
    def tokens(self) -> int:
        """Return the training tokens of all phases."""
        return sum(stage.tokens for stage in self.stages)

    @property
    def facts(self) -> ModelFacts:
        """Return the counts of the model that the last phase ends with."""
        return self.sizes[self.stages[-1].name]


def make_plan(loaded: Loaded, plugins: Plugins, store: Store) -> Plan:
    """Resolve every component, count parameters, tokens, FLOPs and memory, and look into the store.

    Raises ``ConfigError``, ``PluginError`` or ``DataError`` for whatever a user can mend; trains and writes nothing.
    """
    registry = plugins.components()
    experiment = complete(loaded, registry)
    machine = machine_for(loaded, experiment)
    derived = explain(experiment)
    corpus = Corpus.load(experiment.data, registry, loaded.base_folder)
    check_domains(experiment, corpus.domains)
    sizes = Sizes(experiment, lambda one: model_builder(one, registry, explain(one)))
    budget = budget_of(experiment, machine, registry, sizes)
    used = used_components(experiment, experiment.phases.values(), registry)
    provenance = plugins.provenance(used.values())
    stages: list[StagePlan] = []
    parent: Recipe | None = None
    chain: str | None = None
    model = {
        "use": experiment.model.use,
        "router": experiment.model.router,
        "options": with_content(experiment.model.options, loaded.base_folder),
        "derived": derive(experiment.size).values,
    }
    # Left out where they say nothing, so that random streams of models without them stay as they were.
    if experiment.model.mixer != ModelSection().mixer:
        model["mixer"] = experiment.model.mixer
    if experiment.model.quantizer is not None:
        model["quantizer"] = experiment.model.quantizer
    tokenizer = with_content(to_plain(experiment.tokenizer), loaded.base_folder)
    earlier: tuple[StepSection, ...] = ()
    for name in phase_order(experiment):
        section = experiment.phases[name]
        known = with_drafts(section, loaded.base_folder)
        recipe = stage_recipe(
            parent=parent.digest if parent is not None else None,
            phase=name,
            section=known,
            model=model,
            tokenizer=tokenizer,
            data=corpus.fingerprint(),
            components={
                ref: entry.component.revision for ref, entry in used_components(experiment, [section], registry).items()
            },
            seed=experiment.seed,
            precision=experiment.precision,
        )
        chain = training_chain(
            chain,
            phase=name,
            steps=known.steps,
            model=model,
            tokenizer=tokenizer,
            data=corpus.fingerprint(),
            seed=experiment.seed,
            precision=experiment.precision,
        )
        stages.append(
            StagePlan(
                name=name,
                section=section,
                parent=stages[-1].name if stages else None,
                earlier=earlier,
                recipe=recipe,
                chain=chain,
                tokens=budget.phases[name].tokens,
                flops=budget.phases[name].training + budget.phases[name].inference,
                cached=store.find(recipe) is not None,
            )
        )
        parent = recipe
        for step in section.steps.values():
            earlier = (step,) if step.fresh is not None else (*earlier, step)
    return Plan(
        experiment=experiment,
        stages=tuple(stages),
        components=used,
        provenance=provenance,
        derived=derived,
        sizes=sizes.by_phase(),
        memory=memory_of(sizes.largest(), experiment),
        budget=budget,
        corpus=corpus,
        registry=registry,
        plugins=plugins,
        source=loaded.path,
        locate=loaded.locate,
    )


def model_builder(experiment: Experiment, registry: Registry, derived: Derived) -> Any:
    """Return the experiment's model builder; it allocates nothing until asked to build."""
    assert experiment.tokenizer.vocab_size is not None and experiment.data.sequence_length is not None
    return registry.build(
        "model",
        experiment.model.use,
        experiment.model.options,
        context=ModelContext(
            registry=registry,
            router=experiment.model.router,
            derived=derived.values,
            vocab_size=experiment.tokenizer.vocab_size,
            sequence_length=experiment.data.sequence_length,
            mixer=experiment.model.mixer,
            quantizer=experiment.model.quantizer,
        ),
    )


def machine_for(loaded: Loaded, experiment: Experiment) -> Machine:
    """Return the machine that hours and cost are stated for; ``ConfigError`` with its place for an unknown device."""
    with blaming("hardware", "device"):
        return machine_of(experiment.hardware, experiment.precision)


def budget_of(experiment: Experiment, machine: Machine, registry: Registry, sizes: Sizes) -> Budget:
    """Return the experiment's budget; a token costs what it costs in the model that its step trains."""
    specs = {name: registry.get("phase", section.use).component for name, section in experiment.phases.items()}
    phases = {name: spec for name, spec in specs.items() if isinstance(spec, PhaseSpec)}
    return make_budget(experiment, machine, phases, sizes.per_token)


def used_components(experiment: Experiment, phases: Iterable[PhaseSection], registry: Registry) -> dict[str, Entry]:
    """Return every component that these phases name, with the model, router and sources, by ``kind/dist:name``."""
    wanted = {("model", experiment.model.use), ("router", experiment.model.router.use)}
    if experiment.model.mixer != ModelSection().mixer:
        wanted.add(("mixer", experiment.model.mixer.use))
    if experiment.model.quantizer is not None:
        wanted.add(("quantizer", experiment.model.quantizer.use))
    wanted |= {("source", source.use) for source in experiment.data.sources.values()}
    for phase in phases:
        wanted.add(("phase", phase.use))
        wanted |= {("gate", criterion.use) for criterion in (*phase.entry.values(), *phase.gates.values())}
        wanted |= {("loss", loss.use) for step in phase.steps.values() for loss in step.losses.values()}
        wanted |= {("anchor", step.anchor.use) for step in phase.steps.values() if step.anchor is not None}
        fresh = [step.fresh for step in phase.steps.values() if step.fresh is not None]
        wanted |= {("mixer", one.mixer.use) for one in fresh if one.mixer is not None}
        wanted |= {("router", one.router.use) for one in fresh if one.router is not None}
        wanted |= {("router", step.router.use) for step in phase.steps.values() if step.router is not None}
        wanted |= {("quantizer", step.quantizer.use) for step in phase.steps.values() if step.quantizer is not None}
    return {entry.key: entry for entry in (registry.get(kind, ref) for kind, ref in sorted(wanted))}


def with_drafts(section: PhaseSection, base: Path) -> PhaseSection:
    """Return the phase with what its steps start from (``options.path``) named by content."""
    steps = {name: replace(step, options=with_content(step.options, base)) for name, step in section.steps.items()}
    return replace(section, steps=steps)


def with_content(options: Mapping[str, Any], base: Path) -> dict[str, Any]:
    """Return the options with a local ``path`` replaced by the digest of what it holds: where it lies says nothing."""
    path = options.get("path")
    if isinstance(path, str) and is_there(base / path):
        return {**options, "path": content_digest(base / path)}
    return dict(options)


def memory_of(facts: ModelFacts, experiment: Experiment) -> int:
    """Estimate one process's peak in training, in bytes; ``facts`` are those of the largest model.

    Weights, gradients and two Adam moments in fp32 are 16 bytes a parameter; activations of one micro-batch are
    ``34 s b h`` bytes a layer in half precision (Korthikanti 2022, 2205.05198), twice that in fp32, without the
    attention matrices that fused kernels do not keep; logits are kept three times in fp32.
    """
    values = dict(derive(experiment.size).values) | dict(experiment.model.options)
    steps = [step for phase in experiment.phases.values() for step in phase.steps.values()]
    length = experiment.data.sequence_length or 0
    trained = [step for step in steps if step.objective not in WITHOUT_STEPS]
    micro = max((step.rows // step.accumulate * (step.sequence_length or length) for step in trained), default=0)
    width = 2 if experiment.precision == "bf16" else 4
    activations = 17 * width * micro * int(values["hidden_size"]) * int(values["num_hidden_layers"])
    logits = 3 * 4 * micro * (experiment.tokenizer.vocab_size or 0)
    return int(16 * facts.total + activations + logits)


def plan_record(plan: Plan) -> dict[str, Any]:
    """Return the plan as JSON data for the run folder."""
    return {
        "experiment": plan.experiment.name,
        "parameters": _parameters(plan.facts),
        "flops_per_token": plan.facts.flops_per_token,
        "memory_bytes": plan.memory,
        "tokens": plan.tokens,
        "budget": budget_record(plan.budget),
        "stages": [
            {
                "phase": stage.name,
                "parameters": _parameters(plan.sizes[stage.name]),
                "fingerprint": stage.recipe.digest,
                "tokens": stage.tokens,
                "flops": stage.flops,
                "cached": stage.cached,
            }
            for stage in plan.stages
        ],
    }


def _parameters(facts: ModelFacts) -> dict[str, Any]:
    return {"total": facts.total, "active": facts.active, "by_role": dict(facts.by_role)}
