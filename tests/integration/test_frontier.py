"""``platform frontier`` trains a safety phase once per beta, shares what comes before, and writes what it found."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

Platform = Callable[..., int]


def stages(folder: Path) -> list[str]:
    """The phases of all finished stages in the store."""
    return sorted(path.parent.name.rpartition("-")[0] for path in (folder / "store").glob("*/COMPLETE"))


@pytest.mark.slow
def test_a_sweep_shares_earlier_phases_and_goes_on_from_what_it_has(
    platform: Platform, six: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert platform("frontier", str(six), "--beta", "0,2") == 0
    shown = capsys.readouterr().out
    assert "only refusals are measured in phase safety, and the phase trains without its anchor step" in shown
    assert "dominated area" in shown
    assert stages(tmp_path) == ["alignment", "foundation", "safety", "safety", "specialization"]
    (folder,) = (tmp_path / "runs" / "tiny").glob("frontier-*")
    record = json.loads((folder / "frontier.json").read_text(encoding="utf-8"))
    assert [point["beta"] for point in record["points"]] == [0.0, 2.0]
    assert all(0 <= point["compliance"]["value"] <= 1 for point in record["points"])
    assert (folder / "frontier.svg").stat().st_size > 1000
    assert platform("frontier", str(six), "--beta", "2") == 0
    assert "from the store" in capsys.readouterr().out
    assert len(stages(tmp_path)) == 5
