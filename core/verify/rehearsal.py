"""The rehearsal: a run of the small plan through the real phase loop into a store of its own, watched from inside."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...registry.hookspecs import HOOKS, hookimpl
from ..config.conversions import CONVERSIONS
from ..config.schema import StepSection
from ..run.bench import Bench
from ..run.interrupt import Interruption
from ..run.loop import StageOutcome, run
from ..run.plan import Plan, StagePlan
from ..run.step import StepOrder, Workshop
from ..run.store import Store, Work
from .shrinking import shrink
from .witness import Observed, Witness

if TYPE_CHECKING:
    from transformers import PreTrainedModel

#: Objectives that end in a trainer of the model itself, so that a step of them can be run again with one thing changed.
TRAINED = ("causal", "contrast", "distill", "dpo", "sft")


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """One step of the curriculum in the rehearsal: its stage, and what it started from."""

    stage: StagePlan
    name: str
    section: StepSection
    earlier: tuple[StepSection, ...]

    @property
    def label(self) -> str:
        """The step as proofs name it."""
        return f"{self.stage.name}/{self.name}"


@dataclass(slots=True, kw_only=True)
class Rehearsal:
    """What the rehearsal left: its stages, what was observed in every step, and which hooks were called.

    ``error`` is what ended it early, if anything did; ``again`` keeps what was run again since.
    """

    plan: Plan
    bench: Bench
    folder: Path
    outcomes: tuple[StageOutcome, ...] = ()
    observed: dict[str, Observed] = field(default_factory=dict)
    called: dict[str, int] = field(default_factory=dict)
    error: Exception | None = None
    again: dict[str, Any] = field(default_factory=dict)
    _shops: dict[str, Workshop] = field(default_factory=dict)
    _models: dict[str, PreTrainedModel] = field(default_factory=dict)

    def places(self) -> Iterator[Place]:
        """Every step in the order in which it is carried out."""
        for stage in self.plan.stages:
            earlier = stage.earlier
            for name, section in stage.section.steps.items():
                earlier = earlier if section.fresh is None else ()
                yield Place(stage=stage, name=name, section=section, earlier=earlier)
                earlier += (section,)

    def trained(self) -> Iterator[tuple[Place, Observed]]:
        """Every step whose trainer was watched, with what was observed."""
        for place in self.places():
            if place.label in self.observed:
                yield place, self.observed[place.label]

    def outcome(self, phase: str) -> StageOutcome:
        """The outcome of one phase."""
        return next(outcome for outcome in self.outcomes if outcome.name == phase)

    def shop(self, stage: StagePlan) -> Workshop:
        """What the steps of a phase share, as the phase had it."""
        if stage.name not in self._shops:
            # The tokenizer is that of the first stage for all of them; nothing is written into the work folder.
            work = Work(recipe=stage.recipe, folder=self.folder / "work", fresh=True)
            self._shops[stage.name] = self.bench.shop(self.plan, self.outcomes[:1], work)
        return self._shops[stage.name]

    def beginning(self, place: Place) -> PreTrainedModel:
        """The model that a step was given, as a copy of one's own."""
        if place.label not in self._models:
            self._models[place.label] = self._beginning(place)
        return copy.deepcopy(self._models[place.label])

    def _beginning(self, place: Place) -> PreTrainedModel:
        from ..model.loading import load_model

        names = list(place.stage.section.steps)
        number = names.index(place.name)
        if number:
            return load_model(self.model_of(place.stage, names[number - 1]), self.plan.registry)
        stages = [one.name for one in self.plan.stages]
        before = self.outcomes[: stages.index(place.stage.name)]
        return self.bench.parents(self.plan, before, self.shop(place.stage).tokenizer).parent()

    def model_of(self, stage: StagePlan, step: str) -> Path:
        """Where the store has the model that a step ended with."""
        folder = self.outcome(stage.name).stage.folder
        return folder / "checkpoint" if step == list(stage.section.steps)[-1] else folder / "steps" / step

    def order(self, place: Place, section: StepSection, folder: Path) -> StepOrder:
        """The order to carry out a step again, as ``section`` has it, with its trainer's files in ``folder``."""
        return StepOrder(
            phase=place.stage.name,
            name=place.name,
            section=section,
            earlier=place.earlier,
            identity=f"{place.stage.chain}/0",
            folder=folder,
            bump=place.stage.section.bump,
            teacher=lambda name: self._teacher(place, name),
        )

    def _teacher(self, place: Place, name: str) -> PreTrainedModel:
        from ..model.loading import load_model

        stages = [one.name for one in self.plan.stages]
        before = self.outcomes[: stages.index(place.stage.name)]
        parents = self.bench.parents(self.plan, before, self.shop(place.stage).tokenizer)
        model = parents.parent() if name == "parent" else load_model(parents.named(name), self.plan.registry)
        model.eval()
        model.requires_grad_(False)
        return model


def rehearse(plan: Plan, folder: Path) -> Rehearsal:
    """Carry out the small form of ``plan`` in ``folder``; what ends it early is kept in ``error``."""
    small, seen = shrink(plan), _Seen(folder)
    bench = Bench(
        store=Store(folder / "store"), interruption=Interruption(), callbacks=seen.callbacks, allow_drift=True
    )
    rehearsal = Rehearsal(plan=small, bench=bench, folder=folder, observed=seen.observed)
    done: list[StageOutcome] = []

    def show(what: str, fact: Any) -> None:
        seen.show(what, fact)
        if what == "outcome":
            done.append(fact)

    with _listening(plan, rehearsal.called):
        try:
            run(small, bench, None, "warn", show)
        except Exception as error:  # raised by ``verify`` unless a proof says why
            rehearsal.error = error
    rehearsal.outcomes = tuple(done)
    rehearsal.bench = replace(bench, callbacks=lambda step, tokens: ())
    return rehearsal


@dataclass(slots=True)
class _Seen:
    """Puts a witness into every trainer of the rehearsal."""

    folder: Path
    observed: dict[str, Observed] = field(default_factory=dict)
    _label: str = ""
    _witness: Witness | None = None

    def show(self, what: str, fact: Any) -> None:
        if what == "step":
            self._collect()
            self._label = f"{fact.attempt.folder.parent.name.rpartition('-')[0]}/{fact.step}"
        elif what in {"committing", "outcome"}:
            self._collect()

    def callbacks(self, step: str, tokens: float) -> tuple[Any, ...]:
        self._witness = Witness(self.folder / "kept" / self._label)
        return (self._witness,)

    def _collect(self) -> None:
        if self._witness is not None and self._witness.observed is not None:
            self.observed[self._label] = self._witness.observed
        self._witness = None


class _Listener:
    """Implements every hook and does nothing, so that all of them have somebody to be called for."""


def _silent(name: str) -> Any:
    def called(ctx: Any) -> None:
        return None

    called.__name__ = name
    return hookimpl(called)


for _name, _parameters in HOOKS.items():
    if _parameters and _name != "phasegate_run_phase":
        setattr(_Listener, _name, staticmethod(_silent(_name)))


@contextmanager
def _listening(plan: Plan, called: dict[str, int]) -> Iterator[Mapping[str, int]]:
    """Count the calls of every hook in the block."""
    manager, listener = plan.plugins.manager, _Listener()

    def before(hook: str, impls: Any, arguments: Any) -> None:
        called[hook] = called.get(hook, 0) + 1

    def after(outcome: Any, hook: str, impls: Any, arguments: Any) -> None:
        """Required by pluggy."""

    manager.register(listener, name="phasegate:verify")
    undo = manager.add_hookcall_monitoring(before, after)
    try:
        yield called
    finally:
        undo()
        manager.unregister(listener)


def is_trained(section: StepSection) -> bool:
    """Say whether the step trains the model itself."""
    return section.objective in TRAINED and section.objective not in CONVERSIONS
