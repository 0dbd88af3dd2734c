"""Run folders: whole and recognisable."""

from __future__ import annotations

import errno
import json
import os
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest
from phasegate.core.run.records import RunFolder, create_run, open_run
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
    assert not list(tmp_path.glob("*/*/manifest.json"))
