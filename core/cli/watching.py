"""What a person sees while a run goes on: how it goes now, verdicts as they come, a summary at the end."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from ..run.work import WITHOUT_STEPS
from .live import Display, LineDisplay, display_of
from .numbers import duration
from .reports import Reports, open_reports
from .terminal import show_gates, show_written
from .view import Pace, Training, View, bound_of

if TYPE_CHECKING:
    from rich.console import Console

    from ..config.schema import PhaseSection, StepSection
    from ..run.attempt import Attempt, Beginning
    from ..run.loop import StageOutcome
    from ..run.plan import Plan, StagePlan
    from ..run.records import RunFolder
    from ..run.store import Store
    from ..training.following import Logged

DOING = {
    "anchor": "reads its prompts and captures an anchor",
    "draft": "the model writes samples for its draft to learn from",
    "probes": "the model answers questions, and probes are fitted to its states",
}


class Watch:
    """Turns what the phase loop tells into terminal output and reports to trackers; silent in all processes but the
    main one.

    Used as a context manager it draws in a terminal, reports to the experiment's trackers below ``folder``, and leaves
    the terminal as it was, whatever ends the run; otherwise it prints plain lines.
    """

    def __init__(
        self,
        console: Console,
        plan: Plan,
        *,
        quiet: bool,
        folder: RunFolder | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.console = console
        self.plan = plan
        self.quiet = quiet
        self.folder = folder
        self.outcomes: list[StageOutcome] = []
        self.started = clock()
        self._clock = clock
        total = sum(stage.flops for stage in plan.stages if not stage.cached)
        self._view = View(began=self.started, phases=len(plan.stages), pace=Pace(total=total))
        self._display: Display = LineDisplay(console, self._view, clock)
        self._draws = False
        self._reports: Reports | None = None
        self._stage: StagePlan | None = None
        self._criterion = 0
        self._entering = True

    def __enter__(self) -> Self:
        if not self.quiet:
            self._display = display_of(self.console, self._view, self._clock)
            self._draws = True
            if self.folder is not None:
                self._reports = open_reports(self.plan, self.folder)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._display.stop()
        if self._reports is not None:
            self._reports.close()

    def show(self, what: str, fact: Any) -> None:
        """Show one fact that the phase loop tells."""
        if self.quiet:
            return
        match what:
            case "phase":
                self.console.rule(f"phase {fact.name}")
                self._begin(fact)
                if self._draws:
                    self._display.start()
            case "waiting":
                self.console.print(fact, markup=False)
            case "step":
                self._step(fact)
            case "measuring":
                self._measure(fact)
            case "judgement":
                self._view.judged[fact.verdict] += 1
                self.console.print(
                    f"  {fact.verdict:<9} {fact.criterion} ({fact.metric}): {fact.reason}", markup=False, style="dim"
                )
            case "log":
                if self._reports is not None:
                    self._reports.noted(fact)
            case "committing":
                self._view.measured, self._view.doing = "", "writes the stage into the store"
            case "outcome":
                self.outcomes.append(fact)
                self._finish(fact)
                self._outcome(fact)

    def callbacks(self, step: str, tokens: float) -> tuple[Any, ...]:
        """Return the trainer callbacks that follow one step of ``tokens`` per optimiser step."""
        if self.quiet:
            return ()
        from ..training.following import FollowCallback

        return (FollowCallback(_Step(self, tokens)),)

    def summary(self, folder: RunFolder | None, store: Store) -> None:
        """Show where everything lies."""
        if self.quiet or folder is None:
            return
        trained = [outcome for outcome in self.outcomes if not outcome.reused]
        self.console.rule("written")
        self.console.print(
            f"{len(trained)} phases trained, {len(self.outcomes) - len(trained)} taken from the store, "
            f"{duration(self._clock() - self.started)} in all"
        )
        places: dict[str, Path] = {"run": folder.path, "store": store.root}
        if self._reports is not None:
            places["trackers"] = self._reports.folder
        places |= {outcome.name: outcome.stage.folder for outcome in self.outcomes}
        show_written(self.console, places)

    # ---- what the phase loop tells

    def _begin(self, stage: StagePlan) -> None:
        self._stage, self._criterion, self._entering = stage, 0, True
        view = self._view
        view.phase, view.place = stage.name, view.place + 1
        view.step, view.doing, view.measured = "", "", ""
        view.training, view.judged = None, Counter()
        view.after = tuple(f"step {name}" for name in stage.section.steps)

    def _step(self, beginning: Beginning) -> None:
        assert self._stage is not None
        view, attempt, name = self._view, beginning.attempt, beginning.step
        section = attempt.steps[name]
        first = name == next(iter(attempt.steps))
        if attempt.number and first:
            view.pace.total += sum(work(self._stage, attempt).values())
        view.pace.done += view.pace.step
        view.pace.step = work(self._stage, attempt)[name]
        if beginning.finished:
            view.pace.skipped += view.pace.step
        if self._reports is not None:
            self._reports.step(optimiser_steps(section))
        again = f", {attempt.kind} {attempt.number}" if attempt.number else ""
        names = list(attempt.steps)
        view.step, view.steps, view.step_place = name, len(names), names.index(name) + 1
        view.kind = f"{section.objective}{again}"
        view.training, view.measured, view.judged = None, "", Counter()
        view.doing = DOING.get(section.objective, "gets its data ready")
        view.after = after(self._stage.section, names[view.step_place :])
        self._criterion, self._entering = 0, False
        if not beginning.finished:
            if not optimiser_steps(section):
                self._work_begins()
            self._display.told(now=True)

    def _measure(self, criterion: str) -> None:
        assert self._stage is not None
        section = self._stage.section
        criteria = section.entry if self._entering else section.gates
        self._criterion += 1
        self._view.training = None
        self._view.measured = (
            f"measures {criterion} ({criteria[criterion].use}), "
            f"{'entry ' if self._entering else ''}criterion {self._criterion} of {len(criteria)}"
        )
        self._view.after = ()
        self._display.told()

    def _finish(self, outcome: StageOutcome) -> None:
        assert self._stage is not None
        pace, stage = self._view.pace, self._stage
        if not outcome.reused:
            pace.done, pace.step = pace.done + pace.step, 0.0
        elif not stage.cached:
            pace.total -= stage.flops  # another process has made it meanwhile
        if self._reports is not None:
            self._reports.outcome(outcome, stage, self._view.place)

    def _outcome(self, outcome: StageOutcome) -> None:
        section = self.plan.experiment.phases[outcome.name]
        papers = {name: criterion.paper for name, criterion in section.gates.items()}
        how = "from the store" if outcome.reused else f"trained in {duration(outcome.facts['seconds'])}"
        show_gates(self.console, outcome.judgements, title=f"{outcome.name}: {how}; {outcome.reason}", papers=papers)
        for attempt in outcome.facts["attempts"]:
            for step, bump in attempt["bump"].items():
                self.console.print(f"transition bump in {step}: {bump_text(bump)}", markup=False)
            for step, notes in attempt["notes"].items():
                for note in notes:
                    self.console.print(f"{step}: {note}", markup=False)

    # ---- what a trainer tells

    def began(self, tokens: float, done: int, steps: int) -> None:
        """Hear that a trainer begins after ``done`` of its ``steps``."""
        view = self._view
        self._work_begins()
        view.pace.skipped += view.pace.step * done / steps
        view.training = Training(first=done, steps=steps, tokens=tokens, began=self._clock(), reached=done, logged=done)

    def _work_begins(self) -> None:
        # Not with the phase: what is made ready before the first step is made once.
        if self._view.pace.began is None:
            self._view.pace.began = self._clock()

    def reached(self, step: int) -> None:
        """Hear that a step is done: this runs after every one of them and only counts."""
        training = self._view.training
        if training is not None:
            training.reached = step

    def logged(self, told: Logged) -> None:
        """Hear what a logging step told."""
        training = self._view.training
        assert training is not None
        training.reached = training.logged = told.step
        training.logged_at = self._clock()
        training.values = told.values
        if told.load is not None:
            training.load = told.load
        if told.old:
            before = told.old[0][1] if training.old is None else training.old[0]
            training.old = (before, told.old[-1][1])
        self._display.told(now=told.step >= training.steps)
        if self._reports is not None:
            self._reports.logged(told, self._view.place, training.speed)


class _Step:
    """Follows the trainer of one step."""

    def __init__(self, watch: Watch, tokens: float) -> None:
        self._watch = watch
        self._tokens = tokens
        self.reached = watch.reached
        self.logged = watch.logged

    def began(self, done: int, steps: int) -> None:
        self._watch.began(self._tokens, done, steps)


def optimiser_steps(section: StepSection) -> int:
    """Return how many optimiser steps a step takes: none where it fits something to a model."""
    return 0 if section.objective in WITHOUT_STEPS else section.steps


def work(stage: StagePlan, attempt: Attempt) -> dict[str, float]:
    """Share the FLOPs that the plan gives a phase out to the steps of an attempt, by the rows that they train on."""
    planned = {name: _rows(section) for name, section in stage.section.steps.items()}
    total = sum(planned.values())
    if not total:
        return dict.fromkeys(attempt.steps, stage.flops / len(attempt.steps))
    return {name: stage.flops * _rows(section) / total for name, section in attempt.steps.items()}


def _rows(section: StepSection) -> int:
    return optimiser_steps(section) * (section.rows * (2 if section.objective in {"contrast", "dpo"} else 1))


def after(section: PhaseSection, steps: list[str]) -> tuple[str, ...]:
    """Return what comes after a step: the phase's other ``steps``, and the criteria of its gate with their bounds."""
    gates = [f"{name} {bound_of(criterion)}" for name, criterion in section.gates.items()]
    if gates:
        gates[0] = f"gate {gates[0]}"
    return (*(f"step {name}" for name in steps), *gates)


def bump_text(bump: dict[str, Any]) -> str:
    """Return the transition bump in words: height, and when the old validation loss was back (SPEC 2B.4)."""
    recovery = bump["recovery"]
    back = "not back within the step" if recovery is None else f"back after {recovery:.1%} of the step"
    return f"height {bump['height']:+.4f} nats over {bump['before']:.4f}, {back}"
