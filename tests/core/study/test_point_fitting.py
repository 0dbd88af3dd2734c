"""Fitting a curriculum to an order that it was not written for."""

from __future__ import annotations

from typing import Any

from phasegate.core.config.schema import CriterionSection, Experiment, PhaseSection, ReplaySection, StepSection
from phasegate.core.study.fitting import fitted


def step(objective: Any, view: str = "chat", **replay: Any) -> StepSection:
    return StepSection(objective=objective, view=view, replay=ReplaySection(**replay))


EXPERIMENT = Experiment(
    name="x",
    phases={
        "read": PhaseSection(steps={"pretrain": step("causal", "text")}),
        "speak": PhaseSection(
            steps={"sft": step("sft", rows=4, weight=1.0), "dpo": step("dpo", rows=4, weight=1.0, chat=0.5)},
            gates={
                "kept": CriterionSection(use="choice", metric="acc", statistic="difference", against="parent"),
                "won": CriterionSection(use="judge", metric="score", statistic="win_rate", against="./sft"),
            },
        ),
        "refuse": PhaseSection(
            steps={"refuse": step("contrast", "refusal", rows=4, weight=1.0, chat=0.5)},
            gates={"kept": CriterionSection(use="choice", metric="acc", statistic="difference", against="speak")},
        ),
    },
)


def changes(*order: str) -> dict[str, Any]:
    found = fitted(EXPERIMENT, order, lambda view: view in {"chat", "refusal"})
    return {change.key: change.value for change in found}


def test_the_written_order_needs_no_change() -> None:
    assert changes("read", "speak", "refuse") == {}


def test_dialogues_that_nothing_has_taught_yet_are_not_replayed() -> None:
    assert changes("read", "refuse", "speak") == {
        "phases.refuse.steps.refuse.replay.chat": 0.0,
        "phases.refuse.gates.kept": None,
    }


def test_without_any_text_only_dialogues_are_replayed_and_a_first_step_replays_nothing() -> None:
    found = changes("speak")
    assert found["phases.speak.steps.sft.replay.rows"] == 0
    assert found["phases.speak.steps.dpo.replay.chat"] == 1.0
    assert "phases.speak.gates.kept" in found
    assert "phases.speak.gates.won" not in found


def test_a_change_is_said_as_an_override_with_its_reason() -> None:
    found = fitted(EXPERIMENT, ("read", "refuse"), lambda view: True)
    assert found[0].override() == "phases.refuse.steps.refuse.replay.chat=0.0"
    assert "no step before it has taught dialogues" in found[0].reason
