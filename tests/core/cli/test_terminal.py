"""What the terminal shows: plan, gates, places."""

from __future__ import annotations

import io
import math
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

from phasegate.core.cli.terminal import make_console, show_budget, show_gates, show_plan, show_written
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


def test_importing_the_terminal_imports_neither_rich_nor_torch() -> None:
    modules = ", ".join(f"phasegate.core.cli.{name}" for name in ("terminal", "watching", "live", "reports"))
    code = f"import {modules}, sys; print(sorted({{'rich', 'torch'}} & set(sys.modules)))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
