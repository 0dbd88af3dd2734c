"""What a person sees of a run, told by the phase loop and by the trainers."""

from __future__ import annotations

import io
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from phasegate.core.cli.terminal import make_console
from phasegate.core.cli.view import Training
from phasegate.core.cli.watching import Watch, after, work
from phasegate.core.config.schema import CriterionSection, PhaseSection, RunSection, StepSection
from phasegate.core.run.attempt import Attempt, Beginning
from phasegate.core.training.following import Logged
from rich.console import Console

GATES = {
    "knowledge": CriterionSection(use="choice", metric="acc", at_least=0.7),
    "load": CriterionSection(use="routing", metric="load_max", at_most=0.3),
}


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def a_stage(name: str, flops: float, *, cached: bool = False, **steps: StepSection) -> Any:
    return SimpleNamespace(name=name, flops=flops, cached=cached, section=PhaseSection(steps=steps, gates=GATES))


def a_plan(*stages: Any) -> Any:
    phases = {stage.name: stage.section for stage in stages}
    return SimpleNamespace(stages=stages, experiment=SimpleNamespace(name="t", phases=phases, run=RunSection()))


def an_attempt(stage: Any, number: int = 0, kind: str = "train", **steps: StepSection) -> Attempt:
    return Attempt(number=number, kind=kind, steps=steps or stage.section.steps, folder=Path("work"))


def an_outcome(stage: Any, *, reused: bool = False) -> Any:
    steps = {name: section.steps for name, section in stage.section.steps.items()}
    facts = {"seconds": 3.0, "attempts": [{"kind": "train", "steps": steps, "bump": {}, "notes": {}}]}
    return SimpleNamespace(
        name=stage.name, reused=reused, judgements=(), reason="all passed", facts=facts, stage=SimpleNamespace()
    )


def logged(step: int, old: tuple[tuple[int, float], ...] = ()) -> Logged:
    return Logged(step=step, values={"loss": 2.0, "loss/task": 1.5}, load=np.full((1, 4), 0.25), old=old)


FIRST = a_stage("foundation", 80.0, pretrain=StepSection(steps=100, rows=4))
SECOND = a_stage(
    "alignment",
    20.0,
    sft=StepSection(objective="sft", steps=30, rows=8),
    dpo=StepSection(objective="dpo", steps=30, rows=4),
)


def watching(*stages: Any, quiet: bool = False) -> tuple[Watch, Clock, io.StringIO]:
    stream, clock = io.StringIO(), Clock()
    return Watch(make_console(stream), a_plan(*stages), quiet=quiet, clock=clock), clock, stream


def test_a_phase_is_told_step_by_step_in_plain_lines() -> None:
    watch, clock, stream = watching(FIRST, SECOND)
    with watch:
        watch.show("phase", FIRST)
        watch.show("step", Beginning(attempt=an_attempt(FIRST), step="pretrain", finished=False))
        watch.began(1000.0, 0, 100)
        for step in range(1, 101):
            clock.now += 0.125
            watch.reached(step)
            if step % 10 == 0:
                watch.logged(logged(step))
        watch.show("measuring", "knowledge")
        clock.now += 6
        watch.show("measuring", "load")
    lines = stream.getvalue().splitlines()
    assert lines[1] == (
        "foundation/pretrain  phase 1 of 2  gets its data ready  next: gate knowledge ≥ 0.7, load ≤ 0.3"
    )
    assert lines[2].startswith(
        "foundation/pretrain  40/100  40%  8,000 tokens/s  about 0:00:08 left, of the run about 0:00:11  loss 2 in all"
    )
    assert [line.split()[1] for line in lines[3:5]] == ["80/100", "100/100"]
    assert lines[5] == "foundation/pretrain  phase 1 of 2  measures load (routing), criterion 2 of 2"
    assert len(lines) == 6 and "\x1b" not in stream.getvalue()


def test_a_criterion_that_is_asked_before_the_phase_is_an_entry_criterion() -> None:
    stage = a_stage("alignment", 1.0, sft=StepSection(objective="sft"))
    stage.section = PhaseSection(steps=stage.section.steps, entry={"knowledge": GATES["knowledge"]}, gates=GATES)
    watch, _, _ = watching(stage)
    watch.show("phase", stage)
    watch.show("measuring", "knowledge")
    assert watch._view.measured == "measures knowledge (choice), entry criterion 1 of 1"
    watch.show("step", Beginning(attempt=an_attempt(stage), step="sft", finished=False))
    watch.show("measuring", "knowledge")
    assert watch._view.measured == "measures knowledge (choice), criterion 1 of 2"


@pytest.mark.parametrize(
    ("objective", "says"),
    [("probes", "probes are fitted"), ("anchor", "captures an anchor"), ("draft", "writes samples"), ("sft", "data")],
)
def test_a_step_that_does_not_train_yet_says_what_it_does(objective: Any, says: str) -> None:
    stage = a_stage("late", 0.0, it=StepSection(objective=objective))
    watch, _, stream = watching(stage)
    watch.show("phase", stage)
    watch.show("step", Beginning(attempt=an_attempt(stage), step="it", finished=False))
    assert says in stream.getvalue()


def test_a_repeated_attempt_is_called_so_and_makes_the_run_longer() -> None:
    watch, _, _ = watching(FIRST)
    watch.show("phase", FIRST)
    watch.show("step", Beginning(attempt=an_attempt(FIRST), step="pretrain", finished=False))
    longer = an_attempt(FIRST, 1, "extend", pretrain=StepSection(steps=25, rows=4))
    watch.show("step", Beginning(attempt=longer, step="pretrain", finished=False))
    assert watch._view.kind == "causal, extend 1"
    assert (watch._view.pace.total, watch._view.pace.done, watch._view.pace.step) == (100.0, 80.0, 20.0)


def test_the_work_of_a_phase_is_shared_out_by_the_rows_that_its_steps_train_on() -> None:
    # sft: 30 x 8 rows; dpo: 30 x 4 pairs, two rows each.
    assert work(SECOND, an_attempt(SECOND)) == {"sft": 10.0, "dpo": 10.0}
    fitted = a_stage("late", 6.0, a=StepSection(objective="probes"), b=StepSection(objective="anchor"))
    assert work(fitted, an_attempt(fitted)) == {"a": 3.0, "b": 3.0}


def test_what_is_in_the_store_is_neither_awaited_nor_counted_as_done() -> None:
    cached = a_stage("foundation", 80.0, cached=True, pretrain=StepSection(steps=100))
    watch, clock, _ = watching(cached, SECOND)
    watch.show("phase", cached)
    watch.show("outcome", an_outcome(cached, reused=True))
    watch.show("phase", SECOND)
    watch.show("step", Beginning(attempt=an_attempt(SECOND), step="sft", finished=False))
    watch.began(100.0, 0, 30)
    clock.now = 10.0
    watch.reached(15)
    watch.logged(logged(15))
    # 5 of 20 FLOPs took 10 s.
    assert watch._view.left(10.0) == 30.0


def test_a_step_that_an_earlier_start_finished_or_began_does_not_make_the_pace_look_fast() -> None:
    watch, clock, _ = watching(SECOND)
    watch.show("phase", SECOND)
    watch.show("step", Beginning(attempt=an_attempt(SECOND), step="sft", finished=True))
    watch.show("step", Beginning(attempt=an_attempt(SECOND), step="dpo", finished=False))
    watch.began(100.0, 15, 30)
    clock.now = 10.0
    watch.reached(18)
    watch.logged(logged(18))
    # 1 of the 5 FLOPs that were left took 10 s.
    assert watch._view.left(10.0) == pytest.approx(40.0)


def test_the_old_loss_is_shown_against_where_the_step_began() -> None:
    watch, _, _ = watching(FIRST)
    watch.show("phase", FIRST)
    watch.show("step", Beginning(attempt=an_attempt(FIRST), step="pretrain", finished=False))
    watch.began(1.0, 0, 100)
    watch.logged(logged(10, ((0, 2.0), (5, 2.5))))
    watch.logged(logged(20, ((15, 2.25),)))
    training = watch._view.training
    assert isinstance(training, Training) and training.old == (2.0, 2.25)


def test_what_comes_next_are_the_steps_that_are_left_and_then_the_gate() -> None:
    assert after(SECOND.section, ["dpo"]) == ("step dpo", "gate knowledge ≥ 0.7", "load ≤ 0.3")
    assert after(PhaseSection(), ["dpo"]) == ("step dpo",)
    assert after(PhaseSection(), []) == ()


def test_other_processes_show_and_follow_nothing() -> None:
    watch, _, stream = watching(FIRST, quiet=True)
    with watch:
        watch.show("phase", FIRST)
        watch.show("step", Beginning(attempt=an_attempt(FIRST), step="pretrain", finished=False))
        assert watch.callbacks("pretrain", 1.0) == ()
        watch.show("outcome", an_outcome(FIRST))
        watch.summary(None, SimpleNamespace())  # type: ignore[arg-type]
    assert stream.getvalue() == ""


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_the_terminal_is_as_it_was_whatever_ends_the_run(
    error: type[BaseException], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TERM", "xterm")
    terminal = Terminal()
    watch = Watch(Console(file=terminal, force_terminal=True, width=80), a_plan(FIRST), quiet=False)
    with pytest.raises(error), watch:
        watch.show("phase", FIRST)
        assert "\x1b[?25l" in terminal.getvalue() and "\x1b[?25h" not in terminal.getvalue()
        raise error
    assert terminal.getvalue().count("\x1b[?25h") == 1


def test_without_being_entered_nothing_is_drawn_even_in_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    terminal = Terminal()
    watch = Watch(Console(file=terminal, force_terminal=True, width=80), a_plan(FIRST), quiet=False)
    watch.show("phase", FIRST)
    assert "\x1b[?25l" not in terminal.getvalue()


def test_what_is_made_ready_before_the_first_step_is_not_taken_for_the_pace_of_the_run() -> None:
    watch, clock, _ = watching(FIRST)
    watch.show("phase", FIRST)
    clock.now = 1000.0
    watch.show("step", Beginning(attempt=an_attempt(FIRST), step="pretrain", finished=False))
    watch.began(1.0, 0, 100)
    clock.now = 1010.0
    watch.reached(20)
    watch.logged(logged(20))
    assert watch._view.left(1010.0) == 40.0
