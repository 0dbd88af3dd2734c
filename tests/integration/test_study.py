"""``platform study``: orders over one store, the same bits with and without it, and nothing lost to a dead worker."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Platform = Callable[..., int]

STUDY = """
study:
  space: {use: rows, rows: {full: {}, skip: {order: foundation>alignment}}}
  seeds: [0]
  scores:
    quality: {of: {knowledge: {use: choice, metric: acc, documents: 40}}}
    calibration: {direction: minimize, of: {ece: {use: calibration, metric: ece, documents: 60}}}
"""
SEARCH = """
study:
  space:
    use: parameters
    order: foundation>specialization
    keys: {phases.foundation.steps.pretrain.learning_rate: {choices: [0.001, 0.002]}}
  seeds: [0]
  scores: {quality: {of: {knowledge: {use: choice, metric: acc, documents: 40}}}}
"""


@pytest.fixture
def study(tiny: Path) -> Path:
    tiny.write_text(tiny.read_text(encoding="utf-8") + STUDY, encoding="utf-8")
    return tiny


def results(folder: Path, name: str = "tiny") -> Any:
    return json.loads((folder / "studies" / name / "results.json").read_text(encoding="utf-8"))


def tensors(folder: Path) -> dict[str, Any]:
    from safetensors.torch import load_file

    return {
        f"{path.relative_to(folder)}:{name}": tensor
        for path in sorted(folder.rglob("*.safetensors"))
        for name, tensor in load_file(path).items()
    }


def test_a_reused_stage_is_bit_equal_to_a_fresh_one(
    platform: Platform, study: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The short order is trained beside a longer one that leaves it its beginning, and again into an empty store."""
    import torch

    assert platform("study", str(study)) == 0
    shown = capsys.readouterr().out
    assert "5 trainings without sharing, 4 with it" in shown
    row = next(row for row in results(tmp_path)["rows"] if row["name"] == "skip")
    assert row["seeds"]["0"]["scores"]["calibration"] is None  # it has no probes, and that is no zero
    alone = tmp_path / "alone.yaml"
    alone.write_text(study.read_text(encoding="utf-8").replace("full: {}, ", ""), encoding="utf-8")
    assert platform("study", str(alone), "--name", "alone", "--store", "fresh") == 0
    stages = row["seeds"]["0"]["stages"]
    assert results(tmp_path, "alone")["rows"][0]["seeds"]["0"]["stages"] == stages
    for stage in stages:
        shared, fresh = tensors(tmp_path / "store" / stage), tensors(tmp_path / "fresh" / stage)
        assert shared.keys() == fresh.keys()
        assert all(torch.equal(tensor, fresh[name]) for name, tensor in shared.items())


def test_a_study_is_counted_before_anything_runs(
    platform: Platform, study: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert platform("study", str(study), "--plan", "--seeds", "0,1") == 0
    shown = capsys.readouterr().out
    assert "10 trainings if every row is trained by itself, 8 with shared stages" in shown
    assert "0 of them are in the store" in shown
    assert not (tmp_path / "store").exists() and not (tmp_path / "studies").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--space", "ordres"), "Did you mean 'orders'?"),
        (("--set", "study.scores.quality.refit=alignment/dpo"), "only a probes step can be refitted"),
        (("--set", "study.scores.quality.refit=alignment/probe"), "is no step"),
        (("--set", "study.scores.quality.of.knowledge.metric=accuracy"), "reports no metric 'accuracy'"),
        (("--set", "study.set={seed: 3}"), "study.seeds says the seeds"),
        (("--set", "study.space={use: rows, rows: {x: {order: fundation}}}"), "did you mean 'foundation'"),
        (("--seeds", "0,one"), "is no list of seeds"),
        (("--set", "study.scores.quality=null", "--set", "study.scores.calibration=null"), "name at least one score"),
        (("--set", "study.sampler=magic"), "must be one of"),
        (("--set", "study.space={use: parameters, keys: {}}"), "varies nothing"),
    ],
)
def test_a_study_that_cannot_be_meant_is_refused_in_a_sentence(
    platform: Platform, study: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: Any, words: str
) -> None:
    assert platform("study", str(study), *arguments) == 2
    shown = " ".join(capsys.readouterr().err.replace("│", " ").split())
    assert words.lower() in shown.lower()
    assert not (tmp_path / "studies").exists()


@pytest.mark.slow
def test_a_study_goes_on_and_refuses_another_experiment_and_a_store_that_was_moved(
    platform: Platform, study: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = study.read_text(encoding="utf-8")
    study.write_text(text.replace("full: {}, skip: {order: foundation>alignment}", "read: {order: foundation}"))
    assert platform("study", str(study)) == 0
    before = results(tmp_path)
    assert platform("study", str(study)) == 0
    assert results(tmp_path)["rows"] == before["rows"]
    capsys.readouterr()
    longer = ("--set", "phases.foundation.steps.pretrain.steps=8")
    assert platform("study", str(study), *longer) == 2
    refused = capsys.readouterr().err
    assert "phases.foundation.steps.pretrain.steps: 9 -> 8" in refused
    assert "another name (--name)" in refused
    (tmp_path / "store").rename(tmp_path / "moved")
    assert platform("study", str(study)) == 2
    assert "Name the store where it is now (--store)" in capsys.readouterr().err
    assert platform("study", str(study), "--store", "moved") == 0


@pytest.mark.slow
def test_a_search_of_parameters_says_which_trial_is_best(
    platform: Platform, tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tiny.write_text(tiny.read_text(encoding="utf-8") + SEARCH, encoding="utf-8")
    assert platform("study", str(tiny)) == 0
    found = results(tmp_path)
    assert [trial["state"] for trial in found["trials"]] == ["complete", "complete"]
    assert {trial["parameters"]["phases.foundation.steps.pretrain.learning_rate"] for trial in found["trials"]} == {
        0.001,
        0.002,
    }
    assert found["best"]
    assert any(name.startswith("foundation:") for name in found["trials"][0]["constraints"])


@pytest.mark.slow
def test_a_worker_that_is_killed_costs_nothing_that_was_trained(study: Path, tmp_path: Path) -> None:
    """Two workers; the second is killed as soon as it has taken a trial. The first ends the study by itself."""
    command = [sys.executable, "-P", "-m", "phasegate.core.cli.app", "study", str(study), "--seeds", "0,1"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    log = (tmp_path / "log").open("wb")
    first = subprocess.Popen([*command, "--workers", "2"], cwd=tmp_path, env=environment, stdout=log, stderr=log)
    try:
        second = wait_for_worker(first.pid, tmp_path)
        os.kill(second, signal.SIGKILL)
        assert first.wait(timeout=300) == 0
    finally:
        first.kill()
        log.close()
    found = results(tmp_path)
    assert found["trainings"]["shared"] == 8
    complete = [path.parent.name for path in (tmp_path / "store").glob("*/COMPLETE")]
    assert len(complete) == 8
    assert {row["name"]: sorted(row["seeds"]) for row in found["rows"]} == {"full": ["0", "1"], "skip": ["0", "1"]}
    assert not list((tmp_path / "store").glob(".draft-*"))


def wait_for_worker(parent: int, folder: Path) -> int:
    """The process of the second worker, once it has said that it runs a trial."""
    for _ in range(600):
        log = folder / "studies" / "tiny" / "worker-1.log"
        if log.is_file() and b"running" in log.read_bytes():
            children = Path(f"/proc/{parent}/task/{parent}/children")
            return int(children.read_text(encoding="ascii").split()[0])
        time.sleep(0.2)
    raise AssertionError("the second worker never began")
