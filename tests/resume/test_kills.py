"""A run that is killed with SIGKILL, wherever that strikes, ends in the bits of one that never was."""

from __future__ import annotations

import secrets
import signal
from pathlib import Path
from typing import Any

import pytest

from .harness import Kills, Whole, differences

TRAINING = "phasegate.core.training.checkpoint"

#: Where a process kills itself. ``halve`` leaves the file that it just wrote half written.
PLACES: dict[str, dict[str, Any]] = {
    "after an optimiser step": {"at": "phasegate.core.cli.watching:Watch.reached", "call": 5, "do": "kill"},
    "while the optimiser is written": {"at": "torch:save", "call": 5, "after": True, "do": "halve"},
    "while plugin state is written": {"at": f"{TRAINING}:save_file", "call": 2, "after": True, "do": "halve"},
    "before a checkpoint is marked": {"at": f"{TRAINING}:seal", "call": 2, "do": "kill"},
    "after the last checkpoint": {"at": "phasegate.core.model.loading:save_model", "do": "kill"},
    "while a step's model is written": {
        "at": "phasegate.core.model.loading:save_model",
        "after": True,
        "do": "halve",
    },
    "while a gate measures": {"at": "phasegate.core.run.gates:write_measurements", "do": "kill"},
    "while verdicts are written": {
        "at": "phasegate.core.run.gates:write_judgements",
        "after": True,
        "do": "halve",
    },
    "before the commit": {"at": "phasegate.core.run.loop:commit", "do": "kill"},
    "between rename and mark": {"at": "phasegate.core.run.store:write_text", "below": "COMPLETE", "do": "kill"},
    "before the work is dropped": {"at": "phasegate.core.run.store:_discard", "below": ".work", "do": "kill"},
    "before the tokenizer is marked": {"at": "phasegate.core.run.tokenizing:seal", "do": "kill"},
    "while the run folder is made": {"at": "phasegate.core.run.records:write_json", "call": 2, "do": "kill"},
    "while a work folder is made": {"at": "phasegate.core.run.store:write_json", "do": "kill"},
}
FAST = {"while the optimiser is written", "while a gate measures", "between rename and mark"}


@pytest.mark.parametrize("place", [pytest.param(p, marks=() if p in FAST else pytest.mark.slow) for p in PLACES])
def test_a_run_that_is_killed_at_a_bad_moment_ends_in_the_same_bits(place: str, first: Whole, tmp_path: Path) -> None:
    forge = first.twin(tmp_path)
    code, life = forge.run(PLACES[place])
    assert code == -signal.SIGKILL, life.said()[-2000:]
    forge.finish()
    assert differences(first.forge.folder, forge.folder) == []
    assert not [path.name for path in forge.store.glob(".work/*") if place != "before the work is dropped"]


@pytest.mark.slow
def test_a_run_that_is_killed_between_two_phases_ends_in_the_same_bits(short: Whole, tmp_path: Path) -> None:
    forge = short.twin(tmp_path)
    code, life = forge.run({"at": "phasegate.core.run.loop:run_phase", "call": 2, "do": "kill"})
    assert code == -signal.SIGKILL, life.said()[-2000:]
    forge.finish()
    assert differences(short.forge.folder, forge.folder) == []


def struck(whole: Whole, folder: Path, count: int, length: int) -> list[str]:
    """Kill runs of an experiment ``count`` times in all, each up to ``length`` times, and compare; where it struck."""
    kills = Kills(whole=whole, seed=secrets.randbelow(2**32))
    for number in range(count):
        if (left := count - len(kills.done)) <= 0:
            break
        found = kills.chain(folder / str(number), min(length, left))
        assert found == [], f"seed {kills.seed}, killed after {kills.done}: {found}"
    return kills.done


def test_five_random_kills_change_nothing(short: Whole, tmp_path: Path) -> None:
    assert len(struck(short, tmp_path, 5, 5)) == 5


@pytest.mark.slow
def test_random_kills_of_short_runs_change_nothing(short: Whole, tmp_path: Path) -> None:
    assert len(struck(short, tmp_path, 30, 16)) == 30


@pytest.mark.slow
def test_random_kills_of_the_six_phases_change_nothing(six: Whole, tmp_path: Path) -> None:
    assert len(struck(six, tmp_path, 30, 16)) == 30


@pytest.mark.slow
def test_random_kills_of_the_perspective_stages_change_nothing(perspective: Whole, tmp_path: Path) -> None:
    assert len(struck(perspective, tmp_path, 40, 21)) == 40
