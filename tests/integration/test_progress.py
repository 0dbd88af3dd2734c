"""A run that is watched: in a terminal, in a file, by trackers, and how much memory it took."""

from __future__ import annotations

import json
import os
import pty
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Platform = Callable[..., int]

ONE = "--set=order=foundation"
TRACKED = "--set=run.report_to=[tensorboard]"


def interrupted_at(monkeypatch: pytest.MonkeyPatch, at: int) -> None:
    """Let a signal come before optimiser step ``at`` of every step."""
    from phasegate.core.cli.watching import Watch
    from transformers import TrainerCallback

    class Stop(TrainerCallback):
        def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            if state.global_step == at - 1:
                signal.raise_signal(signal.SIGTERM)

    whole = Watch.callbacks
    monkeypatch.setattr(Watch, "callbacks", lambda self, step, tokens: (*whole(self, step, tokens), Stop()))


def test_a_run_that_is_stopped_and_run_again_is_reported_on_one_axis_without_gap_or_overlap(
    tiny: Path, platform: Platform, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    events = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    arguments = ("train", str(tiny), "--set=order=foundation>specialization", TRACKED)
    with monkeypatch.context() as patch:
        interrupted_at(patch, 5)
        assert platform(*arguments) == 143
    assert platform(*arguments) == 0
    parts = []
    for run in sorted((tmp_path / "runs" / "tiny").iterdir()):
        found = events.EventAccumulator(str(run / "trackers"))
        found.Reload()
        parts.append(found)
    steps = [[point.step for point in part.Scalars("train/loss/task")] for part in parts]
    # Logged every second step of a phase, whenever a checkpoint is written (every third or second) and at its end.
    assert steps == [[2, 3, 4, 6], [8, 9, 11, 13, 15]]
    assert [point.value for point in parts[1].Scalars("train/phase")] == [1, 1, 1, 2, 2, 2, 2]
    assert [point.step for point in parts[1].Scalars("train/gate/knowledge/acc/value")] == [9]
    assert [point.step for point in parts[1].Scalars("train/gate/cross-domain/nll/verdict")] == [15]
    (store,) = (tmp_path / "store").glob("foundation-*/metrics.jsonl")
    logged = [row["loss/task"] for row in map(json.loads, store.read_text().splitlines()) if "loss/task" in row]
    told = [point.value for part in parts for point in part.Scalars("train/loss/task") if point.step <= 9]
    assert told == pytest.approx(logged)
    load = {tag for tag in parts[1].Tags()["scalars"] if tag.startswith("train/router/load/")}
    assert load == {f"train/router/load/{layer}/{expert}" for layer in range(2) for expert in range(6)}
    assert {path.name for path in tmp_path.iterdir()} == {"runs", "store", "tiny.yaml"}
    for manifest in (tmp_path / "store").glob("*/manifest.json"):
        memory = json.loads(manifest.read_text())["facts"]["memory"]
        assert memory["resident"] > 2**26 and memory["since"] in {"phase", "process"}


def test_reporting_is_no_part_of_what_a_stage_is(
    tiny: Path, platform: Platform, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from phasegate.core.cli.options import plan_of
    from phasegate.core.run.store import Store

    plain, tracked = (
        plan_of(str(tiny), sets, None, Store(tmp_path / "store")) for sets in (None, ["run.report_to=[tensorboard]"])
    )
    assert tracked.experiment.run.report_to == ("tensorboard",)
    assert [stage.recipe.digest for stage in plain.stages] == [stage.recipe.digest for stage in tracked.stages]
    assert [stage.chain for stage in plain.stages] == [stage.chain for stage in tracked.stages]


def test_a_run_names_an_unknown_tracker_before_it_plans_and_a_missing_package_before_it_trains(
    tiny: Path, platform: Platform, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert platform("plan", str(tiny), "--set=run.report_to=[tensorbord]") == 2
    assert "there is no tracker 'tensorbord'. Did you mean 'tensorboard'?" in capsys.readouterr().err
    from phasegate.core.config.trackers import Package

    monkeypatch.setattr(Package, "installed", lambda self: False)
    assert platform("train", str(tiny), ONE, TRACKED) == 2
    assert "run pip install tensorboard" in capsys.readouterr().err
    assert not list((tmp_path / "store").glob("*/COMPLETE"))


def test_in_a_terminal_the_run_is_drawn_and_the_terminal_is_as_before_even_when_it_is_stopped(
    tiny: Path, platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "80")
    ours, theirs = pty.openpty()
    read: list[bytes] = []

    def drain() -> None:
        while True:
            try:
                read.append(os.read(ours, 65536))
            except OSError:  # the other end is closed
                return

    reader = threading.Thread(target=drain)
    reader.start()
    with os.fdopen(theirs, "w", encoding="utf-8") as terminal, monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", terminal)
        interrupted_at(patch, 5)
        assert platform("train", str(tiny), ONE) == 143
    reader.join()
    os.close(ours)
    text = b"".join(read).decode()
    assert text.count("\x1b[?25l") == text.count("\x1b[?25h") == 1
    assert "1 of 1  foundation" in text and "pretrain (causal)" in text
    assert "gate knowledge ≥ 0" in text
    assert "stopping at the next logged step" in text


def test_in_a_file_every_step_has_lines_without_control_codes(
    tiny: Path, platform: Platform, capsys: pytest.CaptureFixture[str]
) -> None:
    assert platform("train", str(tiny), ONE) == 0
    text = capsys.readouterr().out
    assert "\x1b" not in text
    (line,) = [line for line in text.splitlines() if line.startswith("foundation/pretrain  9/9  100%")]
    for part in ("tokens/s", "about 0:00:0", "loss ", "task ", "balance ", "rate ", "expert load "):
        assert part in line
