"""A disk that is full or read-only is told in a sentence, and what was done is kept."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from .harness import Whole, differences

TRAINING = "phasegate.core.training.checkpoint"
PLACES: dict[str, dict[str, Any]] = {
    "checkpoint": {"at": f"{TRAINING}:save_file", "call": 2},
    "mark": {"at": f"{TRAINING}:seal", "call": 2},
    "evidence": {"at": "phasegate.core.run.gates:write_measurements"},
    "step's model": {"at": "phasegate.core.model.loading:save_companions"},
    "commit": {"at": "phasegate.core.run.commit:write_text"},
    "run folder": {"at": "phasegate.core.run.records:write_text"},
}
FAST = {("commit", "full"), ("checkpoint", "read-only")}


@pytest.mark.parametrize(
    ("place", "how"),
    [
        pytest.param(place, how, marks=() if (place, how) in FAST else pytest.mark.slow)
        for place in PLACES
        for how in ("full", "read-only")
        if (place, how) != ("evidence", "read-only")
    ],
)
def test_a_write_that_is_refused_is_one_sentence_and_the_next_run_ends_in_the_same_bits(
    place: str, how: str, first: Whole, tmp_path: Path
) -> None:
    forge = first.twin(tmp_path)
    code, life = forge.run({**PLACES[place], "do": how})
    assert code == 2, life.said()[-3000:]
    words = {"full": ("the disk is full", "No space left"), "read-only": ("read-only", "Read-only")}[how]
    assert any(word in life.error() for word in words) and "Traceback" not in life.said(), life.said()[-3000:]
    assert not list(forge.store.glob("*/COMPLETE"))
    forge.finish()
    assert differences(first.forge.folder, forge.folder) == []


def test_a_store_that_cannot_be_written_is_one_sentence(first: Whole, tmp_path: Path) -> None:
    forge = first.twin(tmp_path)
    code, life = forge.run({"at": "pathlib:Path.mkdir", "below": "store", "do": "read-only"})
    assert code == 2 and "read-only for this user" in life.error(), life.said()[-3000:]
    assert not forge.store.exists()


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A small disk of its own, where the system lets us mount one."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(command, capture_output=True).returncode != 0:
        pytest.skip("a small disk needs the right to mount one")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.mark.slow
def test_a_disk_that_really_fills_up_again_and_again_loses_nothing(disk: Path, first: Whole) -> None:
    forge = first.twin(disk / "run")
    kilobytes = 1000
    while True:
        subprocess.run(["mount", "-o", f"remount,size={kilobytes}k", str(disk)], check=True)
        code, life = forge.run()
        assert "Traceback" not in life.said(), life.said()[-3000:]
        if code == 0:
            break
        assert code == 2 and "the disk is full" in life.error(), life.said()[-3000:]
        assert not list(forge.store.glob("*/COMPLETE"))
        kilobytes += 500
    assert kilobytes > 1000
    assert differences(first.forge.folder, forge.folder) == []
