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
from phasegate.core.run.published import A100, CLAIMS, PUBLISHED, PUBLISHED_SHARES, PUBLISHED_TOKENS, TIED
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
    return make_budget(experiment, machine_of(hardware, "fp32"), specs, lambda phase, step, length: 3e15)


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


def test_a_papers_table_stands_beside_phases_of_its_curriculum_only() -> None:
    first = budget_of({"base": section("foundation"), "mine": section("other")})
    second = budget_of({"seed": section("dense-seed")})
    neither = budget_of({"mine": section("other"), "experts": section("expert-initialization")})
    assert (len(first.missing), first.claims) == (5, ())
    assert (second.missing, second.claims) == ((), CLAIMS)
    assert (neither.missing, neither.claims) == ((), ())
    assert [{"paper", "claims"} & set(budget_record(one)) for one in (first, second, neither)] == [
        {"paper"},
        {"claims"},
        set(),
    ]


def test_the_second_papers_claims_are_as_printed_and_above_what_its_devices_can_do() -> None:
    assert [(claim.claimed_flops, claim.claimed_hours) for claim in CLAIMS] == [
        (3.2e21, 2_700),
        (8.1e22, 21_500),
        (3.2e22, 8_600),
        (1.6e21, 430),
    ]
    assert sum(claim.claimed_flops for claim in CLAIMS) == pytest.approx(1.178e23)
    assert sum(claim.claimed_hours for claim in CLAIMS) == 33_230
    assert A100.peak == 312e12
    rates = [claim.claimed_rate for claim in CLAIMS]
    assert rates == pytest.approx([3.29e14, 1.05e15, 1.03e15, 1.03e15], rel=5e-3)
    assert all(rate > A100.peak for rate in rates)


def test_corrected_the_second_papers_compute_is_by_arithmetic() -> None:
    # 6 x 6.83e9 x 1e12; 6 x 14.94e9 x 500e9; (6 + 2) x 14.94e9 x 200e9; 4 x 14.94e9 x 50e9
    assert [claim.flops for claim in CLAIMS] == pytest.approx([4.098e22, 4.482e22, 2.3904e22, 2.988e21])
    assert TIED.flops == pytest.approx(8.964e22)
    # at 0.4 x 312e12 x 3600 = 4.4928e17 FLOPs an hour
    assert [claim.hours for claim in CLAIMS] == pytest.approx([91_213, 99_760, 53_205, 6_651], abs=1)
    assert sum(claim.flops for claim in CLAIMS) == pytest.approx(1.12692e23)
    assert sum(claim.hours for claim in CLAIMS) == pytest.approx(250_828, abs=1)
    assert sum(claim.cost for claim in CLAIMS) == pytest.approx(752_484, abs=2)


def test_no_corrected_figure_implies_more_than_a_device_can_do() -> None:
    for claim in (*CLAIMS, TIED):
        assert claim.flops / claim.hours / 3600 == pytest.approx(0.4 * 312e12)


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


def test_the_record_of_the_second_paper_holds_claims_and_corrections() -> None:
    record = json.loads(json.dumps(budget_record(budget_of({"seed": section("dense-seed")}))))["claims"]
    assert [row["phase"] for row in record["stages"]] == [claim.phase for claim in CLAIMS]
    assert all(row["above_peak"] for row in record["stages"])
    assert [row["flops_per_parameter_and_token"] for row in record["stages"]] == [6, 6, 8, 4]
    assert record["seed_with_shared_ffns"]["flops"] == pytest.approx(8.964e22)
    assert (record["hours"], record["cost"]) == (pytest.approx(250_828, abs=1), pytest.approx(752_484, abs=2))


def test_the_claims_belong_to_phases_that_exist() -> None:
    names = {entry.component.name for entry in Plugins.load([]).components().of("phase")}
    assert {claim.phase for claim in CLAIMS} <= names


def test_the_built_in_phases_say_what_drives_their_cost_in_the_papers_words() -> None:
    registry = Plugins.load([]).components()
    for row in PUBLISHED:
        entries = [entry for entry in registry.of("phase") if entry.component.name == row.phase]
        for entry in entries:
            assert isinstance(entry.component, PhaseSpec) and entry.component.cost_driver == row.driver
    assert any(entry.component.name == "foundation" for entry in registry.of("phase"))
