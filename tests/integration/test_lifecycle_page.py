"""The page about the life of a run tells the order in which real runs call their hooks."""

from __future__ import annotations

import importlib
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import groupby
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from phasegate import GateStop
from phasegate.registry.hookspecs import HOOKS

Platform = Callable[..., int]
PAGE = (Path(__file__).parents[2] / "docs" / "lifecycle.md").read_text(encoding="utf-8")
DIAGRAM, PSEUDOCODE = (re.search(rf"```{kind}\n(.*?)```", PAGE, re.DOTALL)[1] for kind in ("text", "python"))  # type: ignore[index]

RECORDER = """
from phasegate import hookimpl

calls = []


@hookimpl(wrapper=True)
def phasegate_run_phase(ctx):
    calls.append("phasegate_run_phase")
    result = yield
    calls.append("phasegate_run_phase ends")
    return result


@hookimpl
def phasegate_components():
    calls.append("phasegate_components")
    return ()


@hookimpl
def phasegate_on_gate(ctx):
    calls.append(f"phasegate_on_gate {ctx.when}")
"""
OTHERS = "\n\n@hookimpl\ndef {hook}(ctx):\n    calls.append({hook!r})\n"


@pytest.fixture
def calls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """What a plugin that is asked for as ``recorder`` was called with, in order."""
    site = tmp_path / "site"
    info = site / "phasegate_recorder-1.0.dist-info"
    info.mkdir(parents=True)
    others = [OTHERS.format(hook=hook) for hook in HOOKS if hook not in RECORDER]
    (site / "phasegate_recorder.py").write_text(RECORDER + "".join(others))
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: phasegate-recorder\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[phasegate.plugins.v1]\nrecorder = phasegate_recorder\n")
    (info / "RECORD").write_text("phasegate_recorder.py,,\n")
    monkeypatch.syspath_prepend(str(site))
    importlib.invalidate_caches()
    yield importlib.import_module("phasegate_recorder").calls
    sys.modules.pop("phasegate_recorder", None)


def told(phases: Sequence[Any], attempts: int = 1, entry_fails: bool = False, stops: bool = False) -> list[str]:
    """The calls of the page's pseudocode for a plan: each phase with the names of its entry criteria and gates, the
    optimiser steps of its steps, and whether the store has it."""
    calls: list[str] = []

    @contextmanager
    def run_phase() -> Iterator[None]:
        calls.append("phasegate_run_phase")
        yield
        calls.append("phasegate_run_phase ends")

    def hook(name: str) -> Callable[..., None]:
        return lambda when="": calls.append(f"{name} {when}".rstrip())

    names: dict[str, Any] = {name: hook(name) for name in HOOKS} | {
        "GateStop": GateStop,
        "attempts": lambda phase: [[range(steps) for steps in phase.steps]] * attempts,
        "commit": lambda phase: None,
        "experiment": None,
        "failed": lambda entry: entry_fails,
        "in_store": lambda phase: phase.stored,
        "make_plan": lambda experiment: phases,
        "measure": lambda criterion: None,
        "phasegate_run_phase": run_phase,
        "stops": lambda phase: stops,
        "train": lambda batch: None,
    }
    try:
        exec(compile(PSEUDOCODE, "lifecycle.md", "exec"), names)
    except GateStop:
        assert entry_fails or stops
    return calls


def phase(entry: int, gates: int, *steps: int, stored: bool = False) -> Any:
    return SimpleNamespace(entry=range(entry), gates=range(gates), steps=steps, stored=stored)


def without_repeats(calls: list[str]) -> list[str]:
    """Loading plugins once more for another look at the experiment is no event of a run."""
    heads = [call for call, _ in groupby(calls) if call == "phasegate_components"]
    return [*heads[:1], *(call for call in calls if call != "phasegate_components")]


LEFT_OUT = ("domain-entropy-low", "domain-entropy-high", "general-entropy", "load-low", "load-high", "knowledge-kept")
ONE = ("--plugins=phasegate-recorder", "--set=order=foundation", "--set=phases.foundation.steps.pretrain.steps=3")
TWO = (
    *ONE,
    "--set=order=foundation>specialization",
    "--set=phases.specialization.steps.specialize.steps=2",
    *(f"--set=phases.specialization.gates.{name}=null" for name in LEFT_OUT),
)
MISSED = "--set=phases.foundation.gates.knowledge.at_least=0.99"


def test_a_run_calls_its_hooks_in_the_order_of_the_page(tiny: Path, platform: Platform, calls: list[str]) -> None:
    assert platform("train", str(tiny), *TWO) == 0
    assert without_repeats(calls) == told([phase(0, 3, 3), phase(1, 1, 2)])
    calls.clear()
    assert platform("train", str(tiny), *TWO) == 0
    assert without_repeats(calls) == told([phase(0, 3, 3, stored=True), phase(1, 1, 2, stored=True)])


@pytest.mark.slow
def test_an_extension_trains_and_measures_again_within_the_phase(
    tiny: Path, platform: Platform, calls: list[str]
) -> None:
    policy = "{on_fail: extend, on_undecided: extend, extensions: 1, extend_by: 1.0, then: advance}"
    assert platform("train", str(tiny), *ONE, MISSED, f"--set=phases.foundation.policy={policy}") == 0
    assert without_repeats(calls) == told([phase(0, 3, 3)], attempts=2)


@pytest.mark.slow
def test_a_stop_keeps_the_stage_and_still_ends_the_run(tiny: Path, platform: Platform, calls: list[str]) -> None:
    policy = "--set=phases.foundation.policy={on_fail: stop, on_undecided: stop}"
    assert platform("train", str(tiny), *TWO, MISSED, policy) == 3
    assert without_repeats(calls) == told([phase(0, 3, 3)], stops=True)


@pytest.mark.slow
def test_a_phase_that_is_not_entered_trains_nothing(tiny: Path, platform: Platform, calls: list[str]) -> None:
    entry = "--set=phases.specialization.entry.no-dead-experts={at_least: 99, at_most: null}"
    assert platform("train", str(tiny), *TWO, entry) == 3
    first, second = told([phase(0, 3, 3)])[:-1], told([phase(1, 0)], entry_fails=True)[2:]
    assert without_repeats(calls) == [*first, *second]


@pytest.mark.parametrize("place", [DIAGRAM, PSEUDOCODE], ids=["diagram", "pseudocode"])
def test_every_hook_has_its_place_in_the_order_in_which_a_run_meets_them(place: str) -> None:
    found = re.findall(r"phasegate_\w+", place)
    first = [name for name in dict.fromkeys(found) if name != "phasegate_on_gate"]
    assert first == [name for name in HOOKS if name != "phasegate_on_gate"]
    assert found.count("phasegate_on_gate") == 2


def test_the_lines_of_the_diagram_are_equally_long() -> None:
    boxed = [line for line in DIAGRAM.splitlines() if line[1] in "╔║╚"]
    assert len({len(line) for line in boxed}) == 1
