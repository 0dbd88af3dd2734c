"""What trackers get of a run: every number once, on one axis of optimiser steps over all phases."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from phasegate import ConfigError
from phasegate.core.cli.reports import Reports, open_reports, trained_steps
from phasegate.core.config.schema import PhaseSection, RunSection, StepSection
from phasegate.core.config.trackers import Package
from phasegate.core.training.following import Logged


class Tracker:
    def __init__(self) -> None:
        self.rows: list[tuple[int, dict[str, float]]] = []
        self.closed = False

    def log(self, step: int, values: Mapping[str, float]) -> None:
        self.rows.append((step, dict(values)))

    def close(self) -> None:
        self.closed = True


STAGE: Any = SimpleNamespace(
    section=PhaseSection(steps={"learn": StepSection(steps=30), "know": StepSection(objective="probes")})
)


def outcome(*, reused: bool = False, judgements: tuple[Any, ...] = (), bump: Mapping[str, Any] | None = None) -> Any:
    attempts = [
        {"steps": {"learn": 30, "know": 100}, "bump": bump or {}},
        {"steps": {"learn": 8, "know": 100}, "bump": {}},
    ]
    return SimpleNamespace(reused=reused, judgements=judgements, facts={"attempts": attempts})


def logged(step: int, **changes: Any) -> Logged:
    values = {"loss": 2.0, "loss/task": 1.5, "epoch": 0.1, "num_tokens": 5.0}
    return Logged(**{"step": step, "values": values, "load": None, "old": (), **changes})


def reports() -> tuple[Reports, Tracker]:
    tracker = Tracker()
    return Reports(tracker, Path("trackers")), tracker  # type: ignore[arg-type]


def test_steps_of_one_phase_after_another_stand_one_behind_the_other() -> None:
    told, tracker = reports()
    told.step(30)
    told.logged(logged(10), 1, None)
    told.logged(logged(30), 1, None)
    told.step(0)  # a step that fits something takes none
    told.outcome(outcome(), STAGE, 1)
    told.step(20)
    told.logged(logged(10), 2, None)
    assert [step for step, _ in tracker.rows] == [10, 30, 30, 40]
    assert [row["phase"] for _, row in tracker.rows] == [1, 1, 1, 2]


def test_a_phase_from_the_store_takes_its_place_and_is_not_reported_again() -> None:
    told, tracker = reports()
    assert trained_steps(outcome().facts, STAGE) == 38
    told.outcome(outcome(reused=True), STAGE, 1)
    told.step(20)
    told.logged(logged(10), 2, None)
    assert [step for step, _ in tracker.rows] == [48]


def test_a_logging_step_has_what_the_terminal_and_the_metrics_have_and_nothing_that_starts_anew_in_every_step() -> None:
    told, tracker = reports()
    told.step(30)
    told.logged(logged(10, load=np.asarray([[0.75, 0.25]])), 1, 4096.0)
    ((_, row),) = tracker.rows
    assert row == {
        "loss": 2.0,
        "loss/task": 1.5,
        "tokens_per_second": 4096.0,
        "router/load/0/0": 0.75,
        "router/load/0/1": 0.25,
        "phase": 1.0,
    }


def test_the_old_loss_stands_where_it_was_measured() -> None:
    told, tracker = reports()
    told.step(30)
    told.step(30)
    told.logged(logged(10, old=((0, 2.0), (6, 2.5))), 1, None)
    assert tracker.rows[:2] == [(30, {"bump/old_loss": 2.0}), (36, {"bump/old_loss": 2.5})]


def test_a_gate_gives_its_values_bounds_and_verdicts_as_numbers_where_its_phase_ends() -> None:
    def judgement(verdict: str, value: float) -> Any:
        return SimpleNamespace(
            criterion="knowledge", metric=f"acc/{verdict}", value=value, low=0.5, high=0.9, verdict=verdict
        )

    told, tracker = reports()
    told.step(30)
    judgements = (judgement("pass", 0.75), judgement("undecided", math.nan), judgement("fail", 0.25))
    bump = {"learn": {"height": 0.5, "recovery": 0.25}, "more": {"height": 1.5, "recovery": None}}
    told.outcome(outcome(judgements=judgements, bump=bump), STAGE, 2)
    ((step, row),) = tracker.rows
    assert step == 30
    assert row["gate/knowledge/acc/pass/value"] == 0.75
    assert (row["gate/knowledge/acc/pass/low"], row["gate/knowledge/acc/pass/high"]) == (0.5, 0.9)
    verdicts = [row[f"gate/knowledge/acc/{verdict}/verdict"] for verdict in ("pass", "undecided", "fail")]
    assert verdicts == [1.0, 0.0, -1.0]
    assert (row["bump/learn/height"], row["bump/learn/recovery"], row["bump/more/height"]) == (0.5, 0.25, 1.5)
    assert "bump/more/recovery" not in row


def test_what_a_plugin_logs_of_its_phase_stands_at_the_end_of_it() -> None:
    told, tracker = reports()
    told.step(30)
    told.noted({"lego/bricks": 3.0})
    assert tracker.rows == [(30, {"lego/bricks": 3.0})]


def test_without_trackers_nothing_is_opened_and_a_missing_package_is_told_with_its_name(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    folder: Any = SimpleNamespace(path=tmp_path)
    plan: Any = SimpleNamespace(experiment=SimpleNamespace(run=RunSection()))
    assert open_reports(plan, folder) is None
    monkeypatch.setattr(Package, "installed", lambda self: False)
    plan = SimpleNamespace(experiment=SimpleNamespace(run=RunSection(report_to=("comet_ml",))))
    with pytest.raises(ConfigError, match="comet_ml, whose package is not installed; run pip install comet-ml"):
        open_reports(plan, folder)
    assert list(tmp_path.iterdir()) == []
