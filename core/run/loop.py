"""The phase loop. This is where it happens: enter, prepare, train, measure, decide, commit, for every phase."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal

from ...evals.criteria import Judgement
from ...registry.contexts import GateContext, PhaseContext, PhaseResult, RunContext, SaveContext
from ...registry.errors import GateStop, PluginError
from ..training.memory import PeakMemory
from .bench import Bench
from .commit import commit, verdicts_of
from .plan import Plan, StagePlan
from .preflight import preflight
from .processes import is_main, stop_together
from .records import RunFolder
from .stage import StageRunner, Trained
from .store import Stage
from .tokenizing import TOKENIZER, made_tokenizer

Gates = Literal["enforce", "warn"]
Show = Callable[[str, Any], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class StageOutcome:
    """One phase of a run: where it lies, whether it was trained now, what was measured and decided."""

    name: str
    stage: Stage
    reused: bool
    judgements: tuple[Judgement, ...]
    action: str
    reason: str
    facts: dict[str, Any]


def run(plan: Plan, bench: Bench, folder: RunFolder | None, gates: Gates, show: Show) -> tuple[StageOutcome, ...]:
    """Carry out a plan; every finished phase is in the store before the next begins.

    Raises ``GateStop`` when a gate ends the run (``gates="warn"`` goes on and records it) and ``Interrupted`` after
    a signal. Running the same plan again goes on from there, and trains nothing that the store already has.
    """
    hook = plan.plugins.hook
    context = RunContext(
        experiment=plan.experiment, plan=plan, folder=folder.path if folder is not None else None, corpus=plan.corpus
    )
    outcomes: list[StageOutcome] = []
    try:
        hook.phasegate_on_start(ctx=context)
        preflight(plan)
        for stage in plan.stages:
            stop_together(bench.interruption)
            show("phase", stage)
            outcome = run_phase(plan, bench, stage, outcomes, context, gates, show)
            outcomes.append(outcome)
            if folder is not None:
                folder.add_stage(outcome)
            show("outcome", outcome)
            if outcome.action == "stop" and gates == "enforce":
                raise GateStop(stopped(outcome))
    except BaseException as error:
        plan.plugins.end(replace(context, error=error))
        raise
    hook.phasegate_on_end(ctx=context)
    return tuple(outcomes)


def run_phase(
    plan: Plan,
    bench: Bench,
    stage: StagePlan,
    before: list[StageOutcome],
    context: RunContext,
    gates: Gates,
    show: Show,
) -> StageOutcome:
    """Take a phase from the store, or train, measure and commit it; one process at a time makes a stage."""
    with bench.single_flight(stage.recipe, show):
        found = bench.store.find(stage.recipe)
        if found is not None:
            bench.trust(found.manifest["provenance"], stage, plan, f"stage {found.name}")
            return outcome_of(stage.name, found, reused=True)
        hook = plan.plugins.hook
        work = bench.begin(stage, plan)
        memory = PeakMemory.begin()

        def judged(when: str, judgement: Judgement) -> None:
            show("judgement", judgement)
            hook.phasegate_on_gate(ctx=GateContext(phase=stage.name, when=when, judgement=judgement))

        shop = bench.shop(plan, before, work)
        parents = bench.parents(plan, before, shop.tokenizer)
        runner = StageRunner(shop, stage, work, parents, judged, show)
        with plan.corpus.noting() as read:
            entry = runner.enter()
        if entry is not None and entry.outcome == "fail" and gates == "enforce":
            raise GateStop(
                f"phase '{stage.name}' was not entered: an entry criterion failed on the model it would start from; "
                f"see {work.folder / 'entry'}, or go on with --gates warn"
            )
        trained: list[Trained] = []

        def execute() -> PhaseResult:
            trained.append(runner.train())
            return trained[-1].result

        phase = PhaseContext(
            run=context,
            name=stage.name,
            section=stage.section,
            folder=work.folder,
            parent=stage.parent,
            execute=execute,
            log=lambda values: show("log", values),
        )
        hook.phasegate_before_phase(ctx=phase)
        result = hook.phasegate_run_phase(ctx=phase)
        if len(trained) != 1:
            raise PluginError(
                f"a plugin's phasegate_run_phase called ctx.execute() {len(trained)} times in phase '{stage.name}'; "
                "a wrapper yields exactly once, and a replacement calls it exactly once"
            )
        hook.phasegate_after_phase(ctx=replace(phase, result=result, model=trained[-1].model))

        def saved(checkpoint: Any) -> None:
            hook.phasegate_on_save(ctx=SaveContext(phase=stage.name, folder=checkpoint, is_main=is_main()))

        stop_together(bench.interruption)
        show("committing", stage)
        read |= trained[-1].read | (made_tokenizer(work.folder / TOKENIZER) or set())
        committed = commit(
            bench,
            stage,
            work,
            trained[-1],
            plan.provenance,
            lambda: plan.corpus.report(read),
            saved,
            parents.parent,
            memory,
        )
    return outcome_of(stage.name, committed, reused=False)


def outcome_of(name: str, stage: Stage, *, reused: bool) -> StageOutcome:
    """Return what a committed stage says of itself; a reused one is held to the same decision as a new one."""
    facts = dict(stage.manifest["facts"])
    return StageOutcome(
        name=name,
        stage=stage,
        reused=reused,
        judgements=verdicts_of(stage),
        action=facts["decision"]["action"],
        reason=facts["decision"]["reason"],
        facts=facts,
    )


def stopped(outcome: StageOutcome) -> str:
    """Return the sentence that says which criteria ended the run and what can be done."""
    names = sorted({judgement.criterion for judgement in outcome.judgements if judgement.verdict != "pass"})
    return (
        f"phase '{outcome.name}' ended the run: {outcome.reason} ({', '.join(names)}); it is kept in "
        f"{outcome.stage.folder}, and --gates warn goes on from it without training it again"
    )
