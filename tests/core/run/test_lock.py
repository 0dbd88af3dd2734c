"""The lock between processes, seen from one."""

from __future__ import annotations

from pathlib import Path

import pytest
from phasegate.core.run.lock import single_flight


def test_a_free_lock_is_taken_without_a_word(tmp_path: Path) -> None:
    told: list[str] = []
    with single_flight(tmp_path / "a.lock", "stage a", waiting=told.append):
        assert (tmp_path / "a.owner").exists()
    assert told == []


def test_a_held_lock_is_told_once_with_its_holder(tmp_path: Path) -> None:
    told: list[str] = []

    class Enough(Exception):
        pass

    looks = iter(range(3))

    def stop() -> None:
        if next(looks) == 1:
            raise Enough

    path = tmp_path / "a.lock"
    with (
        single_flight(path, "stage a"),
        pytest.raises(Enough),
        single_flight(path, "stage a", waiting=told.append, stop=stop),
    ):
        pass
    assert len(told) == 1 and "is working on stage a; waiting" in told[0]


def test_a_lock_is_free_after_an_error_in_the_body(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="boom"), single_flight(tmp_path / "a.lock", "stage a"):
        raise RuntimeError("boom")
    with single_flight(tmp_path / "a.lock", "stage a"):
        assert (tmp_path / "a.owner").exists()
    assert not (tmp_path / "a.owner").exists()


def test_locks_of_other_stages_do_not_wait_for_each_other(tmp_path: Path) -> None:
    told: list[str] = []
    with single_flight(tmp_path / "a.lock", "stage a"), single_flight(tmp_path / "b.lock", "b", waiting=told.append):
        assert (tmp_path / "b.owner").exists()
    assert told == []
