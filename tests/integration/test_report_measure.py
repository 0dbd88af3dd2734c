"""``platform report --measure`` fills the table of capabilities once."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

Platform = Callable[..., int]


@pytest.mark.slow
def test_what_a_phase_did_not_ask_for_is_measured_once_and_then_known(
    platform: Platform, tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert platform("train", str(tiny)) == 0
    capsys.readouterr()
    assert platform("report", "runs/tiny", "--measure", "--format", "json", "--output", "facts.json") == 0
    shown = capsys.readouterr().out
    assert "measures format acc after foundation" in shown
    assert "measures choice acc" not in shown  # every phase has asked for that itself
    facts = json.loads((tmp_path / "facts.json").read_text(encoding="utf-8"))
    row = next(row for row in facts["capabilities"] if (row["gate"], row["metric"]) == ("format", "acc"))
    assert len(row["values"]) == 3
    assert all(value is not None and value["value"] is not None for value in row["values"])
    assert platform("report", "runs/tiny", "--measure") == 0
    assert "measures" not in capsys.readouterr().out
    assert (next((tmp_path / "runs" / "tiny").glob("2*")) / "report.html").stat().st_size > 10_000
