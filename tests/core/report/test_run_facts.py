"""What a report says of a run: values, changes and sentences from evidence written by hand."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from phasegate.core.report.answers import answer, changed
from phasegate.core.report.facts import RunFacts
from phasegate.core.report.reading import run_at, run_facts
from phasegate.core.run.store import Store
from phasegate.evals.measurement import Measurement
from phasegate.evals.records import write_measurements

Make = Callable[..., Any]


def read(made: Any) -> RunFacts:
    return run_facts(run_at(made.run), Store(made.store))


def said(facts: RunFacts) -> str:
    return " ".join(answer(facts)).replace("\N{NO-BREAK SPACE}", " ")


def capability(facts: RunFacts, name: str) -> Any:
    return next(one for one in facts.capabilities if one.name == name)


def test_a_change_is_paired_over_the_documents_of_both_phases(make: Make) -> None:
    before, after = capability(read(make()), "choice · acc").values
    assert (before.value, before.n, before.chance, before.change) == (0.9, 1000, 0.25, None)
    # 50 of 1,000 documents are lost: Bonett and Price's interval at 97.5 % on each side.
    assert after.change.since == "foundation"
    assert after.change.value == pytest.approx(-0.05)
    assert (after.change.low, after.change.high) == pytest.approx((-0.06366, -0.03614), abs=2e-5)
    assert after.change.resolved


def test_what_got_worse_stands_in_the_answer_with_the_phase_that_did_it(make: Make) -> None:
    facts = read(make())
    assert [(phase, one.name) for phase, one, _ in changed(facts, worse=True)] == [("safety", "choice · acc")]
    told = said(facts)
    assert "safety moved choice · acc by −0.050 [−0.064, −0.036]" in told


def test_verdicts_are_counted_and_what_is_open_is_named(make: Make) -> None:
    told = answer(read(make()))
    # foundation: narrow fails for code (0.69 of at most 0.6); safety: one of two experts may be 70 % or not.
    assert told[0] == (
        "0 of 2 phases did all of their job; foundation did not; of safety it is undecided: 7 of 9 judgements pass, 1 "
        "fails and 1 stays undecided."
    )
    assert any("foundation: narrow (entropy/code) fails: 0.690 [0.670" in sentence for sentence in told)


def test_an_undecided_criterion_is_not_called_a_failure(make: Make) -> None:
    facts = read(make())
    open_ones = tuple(gate for gate in facts.gates if gate.judgement.verdict != "fail")
    told = answer(replace(facts, gates=open_ones))
    assert told[0].startswith(
        "1 of 2 phases did all of their job; of safety it is undecided: 7 of 8 judgements pass, none"
    )
    assert any(sentence.startswith("safety: needed (match) is undecided") for sentence in told)


def test_a_share_with_other_documents_each_time_is_not_paired(make: Make) -> None:
    made = make()
    later = made.store / "assessed" / made.stages[0].name
    later.mkdir(parents=True)
    key = next(path.stem for path in made.stages[1].evidence.glob("refusal-*.json"))
    other = Measurement(
        metric="over_refused", value=0.5, n=2, kind="proportion", per_document={"0000": 1.0, "new": 0.0}
    )
    write_measurements(later / f"{key}.r1.json", {"over_refused": other})
    change = capability(read(made), "refusal · over_refused").values[1].change
    assert (change.value, change.low, change.resolved) == (pytest.approx(0.01 - 0.5), None, False)


def test_what_was_measured_later_fills_the_matrix(make: Make) -> None:
    made = make()
    assert capability(read(made), "refusal · over_refused").values[0] is None
    later = made.store / "assessed" / made.stages[0].name
    later.mkdir(parents=True)
    key = next(path.name for path in made.stages[1].evidence.glob("refusal-*.json"))
    shutil.copy(made.stages[1].evidence / key, later / key.replace(".json", ".r1.json"))
    assert capability(read(made), "refusal · over_refused").values[0].value == 0.01


def test_a_baseline_measured_by_a_later_phase_belongs_to_the_model_it_was_measured_on(make: Make) -> None:
    made = make()
    folder = made.stages[1].evidence / "against-parent"
    folder.mkdir()
    key = next(path.name for path in made.stages[1].evidence.glob("refusal-*.json"))
    shutil.copy(made.stages[1].evidence / key, folder / key)
    assert capability(read(made), "refusal · over_refused").values[0].value == 0.01


def test_the_bump_and_the_losses_lie_on_one_count_of_steps(make: Make) -> None:
    facts = read(make())
    assert [(part.phase, part.start, part.steps) for part in facts.losses] == [
        ("foundation", 0, 100),
        ("safety", 100, 40),
    ]
    assert facts.losses[1].points[0] == (110, 0.4)
    (bump,) = facts.bumps
    assert (bump.height, bump.recovery, bump.series[1]) == (0.5, 0.75, (110, 1.75))
    # 0.5 of 1.25 nats is 40 %.
    assert "+0.500 nats per token (40 %) on held-out text of the phase before, back after 75 % of it." in said(facts)


def test_an_expert_is_owned_by_the_domain_with_the_largest_part_of_its_tokens(make: Make) -> None:
    first, second = read(make()).routing
    assert first.owners == second.owners == (("code", "prose"),)
    # -0.9 ln 0.9 - 0.1 ln 0.1 and -0.2 ln 0.2 - 0.8 ln 0.8
    assert second.entropy[0] == pytest.approx((0.3251, 0.5004), abs=1e-4)
    assert second.load == ((0.55, 0.45),)


def test_reliability_is_binned_from_the_answers_on_file(make: Make) -> None:
    (found,) = read(make()).confidence
    softmax, probes, _ = found.measures
    # All four softmax confidences lie in the last of 15 bins: mean 0.975, half of the answers right.
    assert [(one.n, one.confidence, one.right) for one in softmax.bins] == [(4, 0.975, 0.5)]
    assert softmax.ece.value == pytest.approx(0.475)
    assert [(one.n, one.right) for one in probes.bins] == [(1, 0.0), (1, 0.0), (1, 1.0), (1, 1.0)]
    assert probes.curve == ((0.25, 0.0), (0.5, 0.0), (1.0, 0.5))


def test_without_answers_on_file_there_are_no_bins(make: Make) -> None:
    made = make()
    for path in made.stages[1].evidence.glob("calibration-*/answers.jsonl"):
        path.unlink()
    (found,) = read(made).confidence
    assert all(measure.bins == () for measure in found.measures)


def test_memory_that_was_not_recorded_is_none(make: Make) -> None:
    first, second = read(make()).phases
    assert (first.memory, second.memory) == (512 * 1024**2, None)


def test_a_frontier_counts_when_it_starts_from_the_model_that_the_phase_started_from(make: Make) -> None:
    made = make()
    folder = made.run.parent / "frontier-20260101T000000Z"
    folder.mkdir()
    share = {"value": 0.1, "low": 0.05, "high": 0.2, "n": 100}
    point = {"beta": 1.0, "over_refusal": share, "compliance": share, "answered": share, "front": True}
    frontier = {"phase": "safety", "area": 0.81, "area_low": 0.7, "area_high": 0.9}
    for stage, source in ((made.stages[0].name, None), (made.stages[1].name, folder.name)):
        text = json.dumps(frontier | {"points": [point | {"stage": stage}]})
        (folder / "frontier.json").write_text(text, encoding="utf-8")
        trade = read(made).trade
        assert trade is not None and trade.source == source
    assert [one.beta for one in trade.points] == [1.0, None]
    assert trade.points[1].over_refusal.value == 0.01 and trade.points[1].compliance.value == 0.04


def test_a_run_that_is_not_finished_says_what_is_left(make: Make) -> None:
    told = answer(read(make(phases=1)))
    assert "The run is not finished: safety has no stage yet." in told
    assert any(sentence.startswith("What each phase cost the others was not measured") for sentence in told)


def test_a_benchmark_result_stands_with_its_stage(make: Make) -> None:
    from phasegate.core.run.benchmarks import BenchmarkRecord, write_record
    from phasegate.core.run.targets import of_stage

    made = make()
    acc = Measurement(
        metric="acc", value=0.75, n=4, kind="proportion", per_document=dict.fromkeys("abcd", 0.75), chance=0.5
    )
    for key, task, found, why in (("1", "blimp", {"acc": acc}, None), ("2", "boolq", {}, "fetch boolq.jsonl")):
        record = BenchmarkRecord(
            key=key * 32,
            task=task,
            model={"name": "x", "digest": of_stage(made.stages[1]).digest},
            config="c",
            data={},
            versions={},
            batch_size=8,
            dtype="float32",
            documents=None,
            seed=0,
            max_length=None,
            created="2026-01-01T00:00:00+00:00",
            missing=why,
            measurements=found,
        )
        write_record(Store(made.store), record)
    blimp, boolq = read(made).benchmarks
    assert (blimp.task, blimp.metric, blimp.values[0], blimp.values[1].value) == ("blimp", "acc", None, 0.75)
    assert (boolq.values, boolq.missing) == ((None, None), ("fetch boolq.jsonl",))


def test_a_report_reads_a_moved_store_where_it_is(make: Make, tmp_path: Path) -> None:
    made = make()
    made.store.rename(tmp_path / "elsewhere")
    assert len(run_facts(run_at(made.run), Store(tmp_path / "elsewhere")).phases) == 2
