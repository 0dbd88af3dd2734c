"""SIGTERM and Ctrl-C end a run cleanly, with their exit codes, and the next one ends in the same bits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from .harness import Whole, differences

#: Where a signal comes: in training, in a gate, while data is made ready for a step, while the run is planned.
PLACES: dict[str, dict[str, Any]] = {
    "step": {"at": "phasegate.core.cli.watching:Watch.reached", "call": 3},
    "gate": {"at": "phasegate.core.run.gates:write_measurements"},
    "data": {"at": "phasegate.core.data.step_data:build_step_data"},
    "plan": {"at": "phasegate.core.run.plan:make_plan"},
}
SLOW = pytest.mark.slow


@pytest.mark.parametrize(
    ("place", "signal", "code"),
    [
        ("step", "sigterm", 143),
        pytest.param("step", "sigint", 130, marks=SLOW),
        pytest.param("gate", "sigterm", 143, marks=SLOW),
        ("gate", "sigint", 130),
        pytest.param("data", "sigterm", 143, marks=SLOW),
        pytest.param("data", "sigint", 130, marks=SLOW),
        pytest.param("plan", "sigterm", 143, marks=SLOW),
        pytest.param("plan", "sigint", 130, marks=SLOW),
        pytest.param("gate", "sigterm twice", 143, marks=SLOW),
    ],
)
def test_a_signal_stops_cleanly_and_the_next_run_ends_in_the_same_bits(
    place: str, signal: str, code: int, first: Whole, tmp_path: Path
) -> None:
    forge = first.twin(tmp_path)
    found, life = forge.run({**PLACES[place], "do": signal})
    assert found == code, life.said()[-2000:]
    assert "Traceback" not in life.said()
    assert not list(forge.store.glob("*/COMPLETE"))
    if place == "step":
        assert list(forge.work.glob("attempt-0/pretrain/trainer/checkpoint-*/COMPLETE"))
    if signal == "sigterm twice":
        assert not list(forge.work.glob("attempt-0/decision.json"))
    forge.finish()
    assert differences(first.forge.folder, forge.folder) == []
