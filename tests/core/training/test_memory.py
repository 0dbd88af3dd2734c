"""The peak of this process's memory while something went on."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from phasegate.core.training import memory
from phasegate.core.training.memory import PeakMemory

BIG = 160 * 2**20


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux can start its counter anew")
def test_a_peak_counts_what_was_held_meanwhile_and_not_what_was_held_before() -> None:
    np.ones(BIG // 8).sum()
    before = PeakMemory.begin()
    low = before.facts()["resident"]
    np.ones(BIG // 8).sum()
    high = before.facts()
    assert high["resident"] - low > 0.9 * BIG
    assert high["since"] == "phase"
    assert PeakMemory.begin().facts()["resident"] - low < 0.5 * BIG


def test_where_the_counter_cannot_be_started_anew_the_peak_is_said_to_be_that_of_the_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "_CLEAR", tmp_path / "none" / "clear_refs")
    monkeypatch.setattr(memory, "_STATUS", tmp_path / "none" / "status")
    facts = PeakMemory.begin().facts()
    assert facts["since"] == "process" and facts["resident"] > 2**20


def test_without_a_device_there_is_no_device_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert PeakMemory.begin().facts()["device"] is None


@pytest.mark.parametrize("used", [True, False])
def test_with_a_device_its_peak_is_read_and_started_anew_once_it_was_used(
    used: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.is_initialized", lambda: used)
    monkeypatch.setattr("torch.cuda.reset_peak_memory_stats", lambda: calls.append("reset"))
    monkeypatch.setattr("torch.cuda.max_memory_allocated", lambda: 12345)
    assert PeakMemory.begin().facts()["device"] == 12345
    assert calls == ["reset"] * used
