"""What cannot be reported is told in one sentence, ends with 2 and writes nothing."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from phasegate.core.cli.app import main

Make = Callable[..., Any]


def report(*arguments: object) -> int:
    with pytest.raises(SystemExit) as ended:
        main(["report", *map(str, arguments)])
    return int(ended.value.code or 0)


def refused(capsys: pytest.CaptureFixture[str], folder: Path, *arguments: object) -> str:
    before = set(folder.rglob("*")) if folder.is_dir() else set()
    assert report(folder, *arguments) == 2
    assert not folder.is_dir() or set(folder.rglob("*")) == before
    error = capsys.readouterr().err
    assert error.startswith("error: ") and len(error.strip().splitlines()) == 1
    return error


def test_a_report_is_written_into_the_run_and_its_path_told(make: Make, capsys: pytest.CaptureFixture[str]) -> None:
    made = make()
    assert report(made.run, "--store", made.store) == 0
    assert capsys.readouterr().out.strip() == f"written to {made.run / 'report.html'}"
    assert (made.run / "report.html").read_text(encoding="utf-8").startswith("<!doctype html>")


@pytest.mark.parametrize("form", ["md", "json"])
def test_the_newest_run_is_taken_and_an_output_can_be_named(make: Make, tmp_path: Path, form: str) -> None:
    made = make()
    output = tmp_path / f"other.{form}"
    assert report(made.run.parent, "--store", made.store, "--format", form, "--output", output) == 0
    assert output.is_file() and not (made.run / f"report.{form}").exists()


def test_a_run_without_a_finished_phase(make: Make, capsys: pytest.CaptureFixture[str]) -> None:
    made = make(phases=0)
    assert "has finished no phase yet" in refused(capsys, made.run, "--store", made.store)


def test_a_store_that_was_moved(make: Make, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    made = make()
    assert "name it with --store" in refused(capsys, made.run, "--store", tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    error = refused(capsys, made.run, "--store", tmp_path / "empty")
    assert f"has no stage {made.stages[0].name}" in error and "name it with --store" in error


def test_a_stage_without_evidence(make: Make, capsys: pytest.CaptureFixture[str]) -> None:
    made = make()
    (made.stages[1].evidence / "verdicts.json").unlink()
    assert f"the stage {made.stages[1].name} has no evidence" in refused(capsys, made.run, "--store", made.store)


@pytest.mark.parametrize("content", ["{", "3", '{"acc": {"value": 1}}', '{"acc": 3}'])
@pytest.mark.parametrize("name", ["choice-*.json", "changes.json", "verdicts.json", "ablation-*/ablation.json"])
def test_a_damaged_file_of_evidence(make: Make, capsys: pytest.CaptureFixture[str], name: str, content: str) -> None:
    made = make()
    (path,) = made.stages[1].evidence.glob(name)
    path.write_text(content, encoding="utf-8")
    assert made.stages[1].name in refused(capsys, made.run, "--store", made.store)


def test_a_damaged_file_of_metrics(make: Make, capsys: pytest.CaptureFixture[str]) -> None:
    made = make()
    made.stages[1].metrics.write_text('{"at": "refuse", "attempt": 0, "loss": "much"}\n', encoding="utf-8")
    assert "metrics.jsonl is damaged" in refused(capsys, made.run, "--store", made.store)


def test_a_folder_that_is_neither(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    folder = tmp_path / "neither"
    folder.mkdir()
    assert "is not a run folder" in refused(capsys, folder)
    assert "there is no folder" in refused(capsys, tmp_path / "absent")


def test_a_study_without_results(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    folder = tmp_path / "study"
    folder.mkdir()
    (folder / "study.json").write_text("{}", encoding="utf-8")
    assert "has no results yet" in refused(capsys, folder)


def test_a_study_with_damaged_or_foreign_results(
    study: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    assert "has format 9" in refused(capsys, study("orders", format=9))
    assert "is damaged" in refused(capsys, study("orders", rows=[{"name": "a"}]))
    assert "has finished no trial yet" in refused(capsys, study("orders", rows=[]))
    folder = study("orders")
    (folder / "results.json").write_text("{", encoding="utf-8")
    assert "is damaged" in refused(capsys, folder)


def test_an_output_in_a_folder_that_does_not_exist(
    make: Make, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    made = make()
    error = refused(capsys, made.run, "--store", made.store, "--output", tmp_path / "no" / "r.html")
    assert "there is no folder" in error


def test_a_former_report_stays_when_a_new_one_cannot_be_made(make: Make) -> None:
    made = make()
    (made.run / "report.html").write_text("former", encoding="utf-8")
    (made.stages[1].evidence / "changes.json").write_text(json.dumps([]), encoding="utf-8")
    assert report(made.run, "--store", made.store) == 2
    assert (made.run / "report.html").read_text(encoding="utf-8") == "former"
