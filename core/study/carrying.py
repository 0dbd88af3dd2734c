"""Carrying out the points of a study: an order with its settings and a seed, through the store, scored at its end."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...registry.errors import GateStop
from ..config.schema import CriterionSection, Experiment, StudySection
from ..data.source import VIEW_COLUMNS
from .fitting import fitted
from .point import GateStopped, PointOutcome, PointRequest, StageFacts

if TYPE_CHECKING:
    from ...evals.criteria import Judgement
    from ..run.interrupt import Interruption
    from ..run.loop import StageOutcome
    from ..run.plan import Plan
    from ..run.store import Store

Show = Callable[[str, Any], None]
Callbacks = Callable[[str, float], tuple[Any, ...]]

#: What a gate says has no consequence where every run is to see the same tokens.
_ADVANCE = {"on_fail": "advance", "on_undecided": "advance", "extensions": 0, "then": "advance"}


@dataclass(slots=True, kw_only=True)
class Carrier:
    """Makes the plan of a point and carries it out; call it with a ``PointRequest``.

    ``runs`` is where the records of the runs go. ``watch`` gives the two callbacks that show a plan's progress.
    ``places`` says where the overrides of the study's ``set`` were written.
    """

    experiment: str
    overrides: Sequence[str]
    plugins: Sequence[str]
    store: Store
    runs: Path
    section: StudySection
    interruption: Interruption
    allow_drift: bool
    watch: Callable[[Plan], tuple[Show, Callbacks]]
    places: Mapping[str, str] = field(default_factory=dict)
    _whole: dict[str, Plan] = field(default_factory=dict, init=False)

    def __call__(self, request: PointRequest) -> PointOutcome:
        """Train what the store lacks, measure the end, and say what it came to; raises ``GateStopped`` where gates are
        enforced and one ended the run, and whatever ``request.on_stage`` raises."""
        from ..run.assessing import Assessor
        from ..run.bench import Bench
        from ..run.loop import run
        from ..run.recording import record_of
        from .ending import Ending

        started = time.perf_counter()
        settings = self._settings(request)
        plan, notes = self.plan(request)
        folder = record_of(plan, self.runs, self.section.gates, self.allow_drift)
        shown, callbacks = self.watch(plan)
        bench = Bench(
            store=self.store, interruption=self.interruption, callbacks=callbacks, allow_drift=self.allow_drift
        )
        seen: list[StageOutcome] = []

        def show(what: str, fact: Any) -> None:
            shown(what, fact)
            if what == "outcome":
                request.on_stage(stage_facts(plan.experiment, fact, len(seen)))
                seen.append(fact)

        try:
            outcomes = run(plan, bench, folder, self.section.gates, show)
        except GateStop as stopped:
            raise GateStopped(seen[-1].name if seen else plan.stages[0].name, str(stopped)) from stopped
        ending = Ending(
            assessor=Assessor(plan=plan, bench=bench),
            whole=self.whole(settings).experiment,
            stages=tuple((outcome.name, outcome.stage) for outcome in outcomes),
            scores=self.section.scores,
        )
        found = ending.measured()
        return PointOutcome(
            scores=found.scores,
            parts=found.parts,
            stages=tuple(outcome.stage.name for outcome in outcomes),
            capabilities=found.capabilities,
            verdicts=found.verdicts,
            seconds=time.perf_counter() - started,
            seconds_saved=sum(outcome.facts["seconds"] for outcome in outcomes if outcome.reused),
            trained=sum(not outcome.reused for outcome in outcomes),
            reused=sum(outcome.reused for outcome in outcomes),
            notes=notes,
        )

    def plan(self, request: PointRequest) -> tuple[Plan, tuple[str, ...]]:
        """Return the plan of a point, and what had to be changed for its order."""
        settings = self._settings(request)
        if request.row is None:
            order: tuple[str, ...] = tuple(self.whole(settings).experiment.phases)
        else:
            order = request.row.phases
        whole = self.whole(settings)
        changes = fitted(whole.experiment, order, lambda view: _is_dialogue(whole, view))
        texts = [
            *settings,
            *self._policy(whole.experiment, order),
            *(change.override() for change in changes),
            f"order={'>'.join(order)}",
            f"seed={request.seed}",
        ]
        notes = tuple(dict.fromkeys(f"{change.key}: {change.reason}" for change in changes))
        return self._make(texts, unmet=True), notes

    def whole(self, settings: Sequence[str]) -> Plan:
        """Return the plan of all phases in their written order under the same settings; it is made once."""
        key = json.dumps(list(settings))
        if key not in self._whole:
            self._whole[key] = self._make(settings, unmet=False)
        return self._whole[key]

    def _settings(self, request: PointRequest) -> list[str]:
        said = {**self.section.set, **(request.row.set if request.row is not None else {}), **request.parameters}
        return [*self.overrides, *(setting(key, value) for key, value in said.items())]

    def _policy(self, experiment: Experiment, order: Sequence[str]) -> list[str]:
        if self.section.gates == "enforce":
            return []
        texts = [f"phases.{name}.policy={json.dumps(_ADVANCE)}" for name in order]
        return texts + [
            f"phases.{name}.entry={json.dumps(dict.fromkeys(experiment.phases[name].entry))}"
            for name in order
            if experiment.phases[name].entry
        ]

    def _make(self, overrides: Sequence[str], *, unmet: bool) -> Plan:
        from ...registry.plugins import Plugins
        from ..config.loading import load_experiment
        from ..run.plan import make_plan

        loaded = replace(load_experiment(self.experiment, overrides, self.plugins, self.places), unmet=unmet)
        enabled = Plugins.load(loaded.experiment.plugins, loaded.experiment.require)
        return make_plan(loaded, enabled, self.store)


def setting(key: str, value: Any) -> str:
    """Return a key that a study sets as an override."""
    return f"{key}={json.dumps(value)}"


def _is_dialogue(plan: Plan, view: str) -> bool:
    """Whether the rows of a view are dialogues; the data is looked at only for views that are not the platform's."""
    if view in VIEW_COLUMNS:
        return {"prompt", "completion"} <= set(VIEW_COLUMNS[view])
    from ..data.prepared import is_dialogue

    return is_dialogue(plan.corpus, view)


def stage_facts(experiment: Experiment, outcome: StageOutcome, number: int) -> StageFacts:
    """Return what a phase says at its boundary."""
    gates = experiment.phases[outcome.name].gates
    worst: dict[str, float] = {}
    for judgement in outcome.judgements:
        margin = margin_of(gates[judgement.criterion], judgement)
        held = worst.get(judgement.criterion, -math.inf)
        worst[judgement.criterion] = margin if math.isnan(margin) or margin > held else held
    return StageFacts(
        phase=outcome.name,
        number=number,
        stage=outcome.stage.name,
        reused=outcome.reused,
        seconds=float(outcome.facts["seconds"]),
        verdict=str(outcome.facts["outcome"]),
        margins=worst,
    )


def margin_of(criterion: CriterionSection, judgement: Judgement) -> float:
    """Return how far the unfavourable end of the interval lies on the wrong side of the bound; at most 0 holds."""
    sides = []
    if criterion.at_least is not None:
        sides.append(criterion.at_least - judgement.low)
    if criterion.at_most is not None:
        sides.append(judgement.high - criterion.at_most)
    return max(sides) if not any(math.isnan(side) for side in sides) else math.nan
