"""The budget of an experiment, and the paper's table with its arithmetic mended."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest
from phasegate import PhaseSpec
from phasegate.core.config.schema import (
    ContextSection,
    DataSection,
    Experiment,
    HardwareSection,
    PhaseSection,
    StepSection,
)
from phasegate.core.run.budget import Budget, budget_record, driver_of, make_budget
from phasegate.core.run.hardware import machine_of
from phasegate.core.run.published import PUBLISHED, PUBLISHED_SHARES, PUBLISHED_TOKENS
from phasegate.registry.plugins import Plugins

PAPER_PHASES = ["foundation", "specialization", "alignment", "safety", "metacognition", "optimization"]


def section(use: str, **step: Any) -> PhaseSection:
    return PhaseSection(use=use, steps={"only": StepSection(**{"steps": 1, "rows": 1, **step})})


def budget_of(phases: Mapping[str, PhaseSection], **drivers: str) -> Budget:
    hardware = HardwareSection(device="a100", devices=2, utilization=0.5)
    experiment = Experiment(name="x", data=DataSection(sequence_length=10), phases=phases, hardware=hardware)
    specs = {
        name: PhaseSpec(name=phase.use, target="x:y", cost_driver=drivers.get(name, ""))
        for name, phase in phases.items()
    }
    return make_budget(experiment, machine_of(hardware, "fp32"), specs, lambda length: 3e15)


def test_the_papers_table_sums_to_its_total_and_its_printed_shares_do_not() -> None:
    assert [row.phase for row in PUBLISHED] == PAPER_PHASES
    assert PUBLISHED_TOKENS == 3085e9
    assert pytest.approx(102.6) == PUBLISHED_SHARES
    assert [round(100 * row.share, 2) for row in PUBLISHED] == [90.76, 4.86, 1.13, 0.39, 0.26, 2.59]
    assert sum(row.share for row in PUBLISHED) == pytest.approx(1.0)


def test_a_phase_has_its_tokens_share_hours_and_cost() -> None:
    budget = budget_of({"foundation": section("foundation", steps=3), "mine": section("other")})
    first, second = budget.phases.values()
    assert (first.tokens, first.share, second.tokens, second.share) == (30, 0.75, 10, 0.25)
    # 30 tokens of 3e15 FLOPs at 2 * 0.5 * 19.5e12 a second; two devices at the table's 1.5 dollars
    assert first.hours == pytest.approx(9e16 / 19.5e12 / 3600)
    assert first.cost == pytest.approx(first.hours * 2 * 1.5)
    assert budget.tokens == 40 and budget.flops == pytest.approx(12e16)


def test_a_phase_stands_beside_the_papers_row_of_its_component_whatever_it_is_called() -> None:
    budget = budget_of({"base": section("foundation"), "mine": section("other")})
    assert budget.phases["base"].published is PUBLISHED[0]
    assert budget.phases["mine"].published is None
    assert [row.phase for row in budget.missing] == PAPER_PHASES[1:]


def test_a_phase_that_says_what_drives_its_cost_is_believed() -> None:
    phases = {"a": section("a", objective="sft"), "b": section("b", objective="sft")}
    budget = budget_of(phases, a="lawyers")
    assert [phase.driver for phase in budget.phases.values()] == ["lawyers", "annotation"]


@pytest.mark.parametrize(
    ("step", "driver"),
    [
        ({}, "compute"),
        ({"objective": "sft"}, "annotation"),
        ({"objective": "dpo"}, "annotation"),
        ({"objective": "contrast"}, "red-team"),
        ({"objective": "probes"}, "expert verification"),
        ({"context": ContextSection(rope="ntk", factor=2)}, "long-context curation"),
    ],
)
def test_what_drives_the_cost_of_a_silent_phase_follows_from_its_steps(step: dict[str, Any], driver: str) -> None:
    assert driver_of(section("x", **step)) == driver


def test_what_is_not_counted_is_said_once() -> None:
    said = budget_of({"a": section("a", objective="probes"), "b": section("b", objective="probes")}).uncounted
    assert len(said) == len(set(said)) == 4
    assert any("questions" in text for text in said) and any("gates" in text for text in said)


def test_phases_without_tokens_have_no_share() -> None:
    assert budget_of({"a": section("a", objective="anchor")}).phases["a"].share == 0.0


def test_the_record_holds_all_of_it_as_json() -> None:
    record = json.loads(json.dumps(budget_record(budget_of({"foundation": section("foundation")}))))
    assert record["hardware"]["peak_flops_per_second"] == 19.5e12
    assert record["hardware"]["price_assumed"] is True
    assert record["phases"][0]["cost_driver"] == "compute"
    assert record["paper"]["tokens"] == 3085e9
    assert record["paper"]["shares_as_printed_sum_to"] == 1.026
    assert [row["phase"] for row in record["paper"]["phases"]] == PAPER_PHASES
    assert record["not_counted"]


def test_the_built_in_phases_say_what_drives_their_cost_in_the_papers_words() -> None:
    registry = Plugins.load([]).components()
    for row in PUBLISHED:
        entries = [entry for entry in registry.of("phase") if entry.component.name == row.phase]
        for entry in entries:
            assert isinstance(entry.component, PhaseSpec) and entry.component.cost_driver == row.driver
    assert any(entry.component.name == "foundation" for entry in registry.of("phase"))
