"""What the terminal shows: plan, progress with and without a terminal, gates, places."""

from __future__ import annotations

import io
import math
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import pytest
from phasegate.core.cli.terminal import (
    PhaseProgress,
    count,
    duration,
    hours,
    interval,
    make_console,
    money,
    number,
    show_budget,
    show_gates,
    show_plan,
    show_written,
    size,
)
from phasegate.core.config.schema import LossSection, PhaseSection, StepSection
from phasegate.core.run.fingerprint import recipe_of
from phasegate.core.run.published import PUBLISHED
from rich.console import Console


@dataclass(frozen=True, kw_only=True)
class Judgement:
    criterion: str = "knowledge"
    metric: str = "choice/accuracy"
    value: float = 0.91234
    low: float = 0.885
    high: float = 0.9321
    n: int = 1200
    bound: str = "≥ 0.7"
    verdict: str = "pass"
    reason: str = "the lower bound clears it"


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def shown(show: object, *arguments: object, **options: object) -> str:
    stream = io.StringIO()
    show(make_console(stream), *arguments, **options)  # type: ignore[operator]
    return stream.getvalue()


def row(text: str, first: str) -> list[str]:
    return next(line for line in text.splitlines() if line.strip().startswith(first)).split()


def test_a_gate_row_shows_value_interval_both_bounds_documents_and_verdict() -> None:
    text = shown(show_gates, [Judgement()], papers={"knowledge": ">= 70 %"})
    cells = "knowledge choice/accuracy 0.9123 [0.885, 0.9321] ≥ 0.7 >= 70 % 1,200 pass"
    assert " ".join(row(text, "knowledge")) == cells


def test_a_judgement_may_carry_the_papers_bound_itself() -> None:
    judgement = SimpleNamespace(**{**vars(Judgement()), "paper": "8-14 %"})
    assert "8-14 %" in shown(show_gates, [judgement])


def test_what_is_not_a_pass_is_given_its_reason_and_a_pass_is_not() -> None:
    judgements = [
        Judgement(criterion="a", reason="silent"),
        Judgement(criterion="b", verdict="fail", reason="too low"),
        Judgement(criterion="c", verdict="undecided", reason="needs 900 documents"),
    ]
    text = shown(show_gates, judgements)
    assert "b (choice/accuracy) fail: too low" in text
    assert "c (choice/accuracy) undecided: needs 900 documents" in text
    assert "silent" not in text


def test_a_value_that_was_not_evaluated_is_a_dash() -> None:
    text = shown(show_gates, [Judgement(value=math.nan, low=math.nan, high=math.nan, n=0, verdict="undecided")])
    assert row(text, "knowledge")[2:4] == ["–", "–"]


def test_names_in_brackets_are_shown_as_they_are() -> None:
    assert "[red]x" in shown(show_gates, [Judgement(criterion="[red]x", verdict="fail", reason="[bold]y")])
    assert "/runs/[dim]/a" in shown(show_written, {"run": Path("/runs/[dim]/a")})


def test_places_are_one_line_each_however_long() -> None:
    long = Path("/" + "x" * 400)
    lines = shown(show_written, {"run": long, "report": Path("/r")}).splitlines()
    assert lines == [f"run     {long}", "report  /r"]


def a_budget() -> SimpleNamespace:
    """One phase of 36e15 FLOPs of training and a tenth of inference; the machine does 1e12 FLOP/s at 3 dollars."""
    phase = SimpleNamespace(
        phase="foundation",
        tokens=1_228_800,
        share=1.0,
        driver="GPU hours",
        training=36e15,
        inference=3.6e15,
        hours=11.0,
        cost=33.0,
        published=PUBLISHED[0],
    )
    machine = SimpleNamespace(
        device=SimpleNamespace(name="a100"),
        devices=2,
        precision="fp32",
        utilization=0.5,
        peak=19.5e12,
        price=1.5,
        assumed=True,
        hours=lambda flops: flops / 3.6e15,
        cost=lambda flops: flops / 1.2e15,
    )
    return SimpleNamespace(
        machine=machine,
        phases={"foundation": phase},
        missing=PUBLISHED[1:],
        uncounted=("gates", "extensions"),
        tokens=1_228_800,
        flops=39.6e15,
    )


def a_plan() -> SimpleNamespace:
    steps = {"pretrain": StepSection(steps=1200, learning_rate=4e-3, losses={"balance": LossSection(use="balance")})}
    stage = SimpleNamespace(
        name="foundation",
        section=PhaseSection(steps=steps),
        recipe=recipe_of({"phase": "foundation"}),
        tokens=1_228_800,
        flops=3.5e12,
        cached=True,
    )
    return SimpleNamespace(
        experiment=SimpleNamespace(name="ncas-nano", size="nano"),
        derived=SimpleNamespace(values={"hidden_size": 64}, reasons={"hidden_size": "the size itself"}),
        components={"router/phasegate:linear": SimpleNamespace(version="0.1.0", component=SimpleNamespace(revision=1))},
        facts=SimpleNamespace(total=480_000, active=180_000),
        memory=3 * 2**30,
        budget=a_budget(),
        stages=(stage,),
    )


def test_a_plan_shows_the_dial_the_components_every_step_and_the_cost() -> None:
    plan = a_plan()
    text = shown(show_plan, plan)
    assert row(text, "hidden_size") == ["hidden_size", "64", "the", "size", "itself"]
    assert row(text, "router/") == ["router/phasegate:linear", "0.1.0", "1"]
    cells = ["foundation", "pretrain", "causal", "1200", "16", "0.004", "balance", "in", "the", "store"]
    assert row(text, "foundation ") == cells
    assert plan.stages[0].recipe.name in text
    assert "480 k parameters, 180 k active; 1.23 M tokens, 3.5 T FLOPs; about 3 GiB of memory" in text


def test_a_budget_shows_tokens_share_and_driver_beside_the_papers_printed_and_corrected_shares() -> None:
    text = shown(show_budget, a_budget(), {"foundation": "foundation-0123"})
    cells = "foundation 1.23 M 100.00% GPU hours 2,800 G 93.0% 90.76%"
    assert " ".join(row(text, "foundation ")) == cells
    assert " ".join(row(text, "(safety)")) == "(safety) – – red-team 12 G 0.4% 0.39%"
    assert " ".join(row(text, "all")) == "all 1.23 M 100.00% 3,085 G 102.6% 100.00%"


def test_a_budget_shows_flops_hours_and_cost_and_what_they_rest_on() -> None:
    text = shown(show_budget, a_budget(), {"foundation": "foundation-0123"})
    compute = text[text.index("compute in FLOPs") :]
    assert " ".join(row(compute, "foundation ")) == "foundation 36 P 3.6 P 11:00:00 33.00 foundation-0123"
    assert " ".join(row(compute, "all")) == "all 36 P 3.6 P 11:00:00 33.00"
    assert "2 x a100 in fp32, each at 50% of 19.5 TFLOP/s and 1.5 US dollars (assumed) an hour" in text
    assert "not counted: gates; extensions" in text


def test_a_step_that_fits_something_shows_neither_steps_nor_a_rate() -> None:
    plan = a_plan()
    plan.stages[0].section = PhaseSection(steps={"know": StepSection(objective="probes", rows=64)})
    assert row(shown(show_plan, plan), "foundation ")[:6] == ["foundation", "know", "probes", "–", "64", "–"]


def test_a_plan_stays_within_a_hundred_columns() -> None:
    stream = io.StringIO()
    show_plan(Console(file=stream, width=100, highlight=False), a_plan())
    lines = stream.getvalue().splitlines()
    assert max(len(line.rstrip()) for line in lines) <= 100
    assert row(stream.getvalue()[stream.getvalue().index("compute") :], "foundation ")[-1].startswith("foundation-")


def test_without_a_terminal_progress_is_one_line_per_interval_and_one_at_the_end() -> None:
    stream, clock = io.StringIO(), Clock()
    with PhaseProgress(make_console(stream), "foundation/pretrain", 100, every=10, clock=clock) as progress:
        for step in range(1, 101):
            clock.now += 0.25
            progress.update(step, step * 1000, {"loss": 2.0})
    # 25 seconds: lines at 10, 20 and at the last step.
    lines = stream.getvalue().splitlines()
    assert len(lines) == 3
    assert lines[0] == "foundation/pretrain  40/100  40%  4,000 tokens/s  0:00:15 left  loss 2"
    assert lines[2].startswith("foundation/pretrain  100/100  100%  4,000 tokens/s  0:00:00 left")


def test_rates_of_a_resumed_step_count_only_what_was_done_since() -> None:
    stream, clock = io.StringIO(), Clock()
    progress = PhaseProgress(make_console(stream), "p", 100, done=80, every=1, clock=clock)
    clock.now += 10
    progress.update(90, 5000, {})
    assert stream.getvalue().strip() == "p  90/100  90%  500 tokens/s  0:00:10 left"


def test_every_loss_is_shown_by_name() -> None:
    stream, clock = io.StringIO(), Clock()
    progress = PhaseProgress(make_console(stream), "p", 1, clock=clock)
    clock.now += 1
    progress.update(1, 1, {"loss": 1.23456, "balance": 0.01, "z": math.nan})
    assert "loss 1.235  balance 0.01  z –" in stream.getvalue()


def test_in_a_terminal_progress_is_a_bar_with_the_same_facts() -> None:
    stream, clock = io.StringIO(), Clock()
    console = Console(file=stream, force_terminal=True, width=160)
    with PhaseProgress(console, "[p]", 10, clock=clock) as progress:
        clock.now += 2
        progress.update(10, 400, {"loss": 0.5})
    text = stream.getvalue()
    assert "[p]" in text and "10/10" in text and "200 tokens/s" in text and "loss 0.5" in text


@pytest.mark.parametrize(
    ("value", "text"), [(0, "0"), (999, "999"), (1000, "1 k"), (1536, "1.54 k"), (999_600, "1 M"), (7.1e18, "7.1 E")]
)
def test_counts_have_three_digits_and_a_suffix(value: float, text: str) -> None:
    assert count(value) == text


@pytest.mark.parametrize(("value", "text"), [(100, "100 B"), (1024, "1 KiB"), (1.5 * 2**30, "1.5 GiB")])
def test_sizes_are_powers_of_1024(value: float, text: str) -> None:
    assert size(value) == text


@pytest.mark.parametrize(
    ("value", "text"), [(0, "–"), (1e-5, "< 1 s"), (0.25, "0:15:00"), (23.5, "23:30:00"), (1234.4, "1,234 h")]
)
def test_hours_say_less_than_a_second_and_drop_minutes_when_there_are_many(value: float, text: str) -> None:
    assert hours(value) == text


@pytest.mark.parametrize(("value", "text"), [(0, "–"), (0.004, "< 0.01"), (0.5, "0.50"), (1234567.891, "1,234,567.89")])
def test_money_has_two_digits_after_the_point(value: float, text: str) -> None:
    assert money(value) == text


def test_small_formats() -> None:
    assert duration(3661.4) == "1:01:01"
    assert number(None) == "–" and number(0.123456) == "0.1235"
    assert interval(-math.inf, 0.5) == "[-inf, 0.5]"


def test_importing_the_terminal_imports_neither_rich_nor_torch() -> None:
    code = "import phasegate.core.cli.terminal, sys; print(sorted({'rich', 'torch'} & set(sys.modules)))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
