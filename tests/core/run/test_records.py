"""Run folders and metrics logs: whole, recognisable, and never telling a step twice."""

from __future__ import annotations

import errno
import json
import math
import os
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest
from phasegate.core.run.records import MetricsLog, RunFolder, create_run, list_runs, open_run, read_metrics
from phasegate.registry.errors import StoreError

NOON = datetime(2026, 1, 2, 12, 0, 5, tzinfo=UTC)


@dataclass
class StageReference:
    name: str
    digest: str = "v1:ab"


@dataclass
class Outcome:
    name: str
    stage: StageReference
    reused: bool = False
    action: str = "advance"
    reason: str = "all gates pass"


def new_run(root: Path, **changes: object) -> RunFolder:
    parts = {"text": "name: nano\n", "plan": {"tokens": 3}, "manifest": {"plugins": {}}, "now": NOON}
    return create_run(root, "nano", **{**parts, **changes})


def test_a_run_folder_is_named_by_experiment_and_utc_second(tmp_path: Path) -> None:
    run = new_run(tmp_path)
    assert run.path == tmp_path / "nano" / "20260102T120005Z"
    assert sorted(path.name for path in run.path.iterdir()) == [
        "experiment.yaml",
        "manifest.json",
        "plan.json",
        "stages.json",
    ]
    assert run.experiment.read_text() == "name: nano\n"
    assert json.loads(run.plan.read_text()) == {"tokens": 3}


def test_two_runs_in_one_second_get_two_folders(tmp_path: Path) -> None:
    names = [new_run(tmp_path).path.name for _ in range(3)]
    assert names == ["20260102T120005Z", "20260102T120005Z-2", "20260102T120005Z-3"]


def test_stages_are_recorded_in_order_and_replaced_by_phase(tmp_path: Path) -> None:
    run = new_run(tmp_path)
    run.add_stage(Outcome("foundation", StageReference("foundation-a")))
    run.add_stage(Outcome("alignment", StageReference("alignment-a")))
    run.add_stage(Outcome("alignment", StageReference("alignment-b"), reused=True))
    found = [(stage["phase"], stage["stage"], stage["reused"]) for stage in open_run(run.path).stages()]
    assert found == [("foundation", "foundation-a", False), ("alignment", "alignment-b", True)]


def test_the_manifest_takes_facts_later(tmp_path: Path) -> None:
    run = new_run(tmp_path)
    run.update_manifest({"finished": True})
    manifest = json.loads(run.manifest.read_text())
    assert manifest["finished"] is True and manifest["plugins"] == {}


def test_all_runs_are_listed_by_experiment_and_time(tmp_path: Path) -> None:
    first, second = new_run(tmp_path), new_run(tmp_path)
    (tmp_path / "nano" / ".new-left").mkdir()
    (tmp_path / "nano" / ".new-left" / "manifest.json").write_text("{}")
    assert [run.path for run in list_runs(tmp_path)] == [first.path, second.path]


def test_a_foreign_folder_is_no_run(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(StoreError, match="is not a run folder"):
        open_run(tmp_path)


def test_a_missing_folder_is_no_run(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="there is no run folder"):
        open_run(tmp_path / "nowhere")


@pytest.mark.parametrize("content", ["{", "[]", '{"kind": "run", "format": 99}', '{"format": 1}', "\x00"])
def test_an_unreadable_or_foreign_manifest_is_named(tmp_path: Path, content: str) -> None:
    run = new_run(tmp_path)
    run.manifest.write_text(content)
    with pytest.raises(StoreError, match=r"manifest\.json"):
        open_run(run.path)


def test_an_experiment_name_cannot_leave_the_folder(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="cannot name a folder"):
        create_run(tmp_path, "../elsewhere", text="", plan={}, manifest={})


def test_a_full_disk_leaves_no_run_that_looks_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StoreError, match="the disk is full"):
        new_run(tmp_path)
    assert list_runs(tmp_path) == ()


def test_a_metrics_line_is_on_the_disk_as_soon_as_it_is_written(tmp_path: Path) -> None:
    log = MetricsLog(tmp_path / "metrics.jsonl")
    log.write(1, {"loss": 2.5, "name": "sft"})
    assert read_metrics(tmp_path / "metrics.jsonl") == [{"step": 1, "loss": 2.5, "name": "sft"}]
    log.close()


def test_a_resumed_log_tells_no_step_twice(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    with MetricsLog(path) as log:
        for step in (10, 20, 30):
            log.write(step, {"loss": 1.0 / step})
    with MetricsLog(path, resumed=20) as log:
        log.write(30, {"loss": 9.0})
    assert [(line["step"], line["loss"]) for line in read_metrics(path)] == [(10, 0.1), (20, 0.05), (30, 9.0)]


def test_a_log_resumed_before_its_first_step_starts_empty(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    with MetricsLog(path) as log:
        log.write(10, {"loss": 1.0})
    with MetricsLog(path, resumed=0):
        pass
    assert path.read_bytes() == b""


def test_a_line_cut_by_a_kill_is_dropped_and_the_log_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b'{"step": 1, "loss": 2.0}\n{"step": 2, "lo')
    assert [line["step"] for line in read_metrics(path)] == [1]
    with MetricsLog(path, resumed=5) as log:
        log.write(6, {"loss": 1.0})
    assert [line["step"] for line in read_metrics(path)] == [1, 6]


def test_a_broken_line_before_the_last_is_named_with_its_number(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1}\nnoise\n{"step": 3}\n')
    with pytest.raises(StoreError, match=r"metrics\.jsonl:2 "):
        read_metrics(path)


def test_a_diverged_loss_is_kept_as_not_a_number(tmp_path: Path) -> None:
    with MetricsLog(tmp_path / "metrics.jsonl") as log:
        log.write(1, {"loss": float("nan")})
    assert math.isnan(read_metrics(tmp_path / "metrics.jsonl")[0]["loss"])
