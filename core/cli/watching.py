"""What a person sees while a run goes on: progress per step, verdicts as they come, a summary at the end."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .terminal import PhaseProgress, duration, show_gates, show_written

if TYPE_CHECKING:
    from rich.console import Console

    from ..run.loop import StageOutcome
    from ..run.plan import Plan, StagePlan
    from ..run.records import RunFolder
    from ..run.store import Store


class Watch:
    """Turns what the phase loop tells into terminal output; silent in all processes but the main one."""

    def __init__(self, console: Console, plan: Plan, *, quiet: bool) -> None:
        self.console = console
        self.plan = plan
        self.quiet = quiet
        self.outcomes: list[StageOutcome] = []
        self.phase: StagePlan | None = None
        self.started = time.monotonic()

    def show(self, what: str, fact: Any) -> None:
        """Show one fact that the phase loop tells."""
        if self.quiet:
            return
        match what:
            case "phase":
                self.phase = fact
                self.console.rule(f"phase {fact.name}")
            case "waiting":
                self.console.print(fact)
            case "judgement":
                self.console.print(
                    f"  {fact.verdict:<9} {fact.criterion} ({fact.metric}): {fact.reason}", markup=False, style="dim"
                )
            case "outcome":
                self.outcomes.append(fact)
                self._outcome(fact)

    def callbacks(self, step: str, tokens: float) -> tuple[Any, ...]:
        """Return the trainer callbacks that draw the progress of one step of ``tokens`` per optimiser step."""
        if self.quiet:
            return ()
        title = f"{self.phase.name}/{step}" if self.phase is not None else step
        return (progress_callback(lambda total, done: PhaseProgress(self.console, title, total, done=done), tokens),)

    def summary(self, folder: RunFolder | None, store: Store) -> None:
        """Show where everything lies."""
        if self.quiet or folder is None:
            return
        trained = [outcome for outcome in self.outcomes if not outcome.reused]
        self.console.rule("written")
        self.console.print(
            f"{len(trained)} phases trained, {len(self.outcomes) - len(trained)} taken from the store, "
            f"{duration(time.monotonic() - self.started)} in all"
        )
        places: dict[str, Path] = {"run": folder.path, "store": store.root}
        places |= {outcome.name: outcome.stage.folder for outcome in self.outcomes}
        show_written(self.console, places)

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


def bump_text(bump: dict[str, Any]) -> str:
    """Return the transition bump in words: height, and when the old validation loss was back (SPEC 2B.4)."""
    recovery = bump["recovery"]
    back = "not back within the step" if recovery is None else f"back after {recovery:.1%} of the step"
    return f"height {bump['height']:+.4f} nats over {bump['before']:.4f}, {back}"


def progress_callback(make: Callable[[int, int], PhaseProgress], tokens: float) -> Any:
    """Return a trainer callback that drives one progress display; ``tokens`` are those of one optimiser step."""
    from transformers import TrainerCallback

    class Progress(TrainerCallback):
        display: PhaseProgress
        first_step: int

        def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            self.first_step = state.global_step
            self.display = make(state.max_steps, state.global_step)
            self.display.__enter__()

        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
            losses = {name: value for name, value in (logs or {}).items() if name in {"loss", "loss/task"}}
            if losses:
                done = state.global_step - self.first_step
                self.display.update(state.global_step, round(done * tokens), losses)

        def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            self.display.__exit__(None, None, None)

    return Progress()
