"""The calibration gate measures the probes that a model has, on answers that it gives now."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from phasegate.core.model.companions import attach, trunk_digest
from phasegate.core.model.probes import Probes
from phasegate.evals.calibration import auroc, calibration_error
from phasegate.evals.criteria import Criterion, judge
from phasegate.plugins.gates.calibration import CalibrationConfig, CalibrationGate

THINGS = ("cat", "sat", "mat", "ate", "one", "small", "fish", "while", "rained", "over", "old", "town", "sea", "red")


@pytest.fixture
def questions(model: Any, tokenizer: Any) -> list[dict[str, Any]]:
    """Sixty questions; the model's own answer, if it has words, is the truth in every second group."""
    from phasegate.core.training.own_answers import own_answers
    from phasegate.evals.rightness import words

    texts = [f"{THINGS[n % 14]} {THINGS[n // 14]} {n}" for n in range(60)]
    said = [""] * 60
    for batch in own_answers(model.eval(), tokenizer, texts, batch=16, new_tokens=4):
        for place, text in zip(batch.places, batch.texts, strict=True):
            said[place] = text
    return [
        {
            "question": text,
            "answer": said[n] if n // 3 % 2 and words(said[n]) else "",
            "domain": "code" if n % 2 else "general",
            "kind": "known" if n // 3 % 2 and words(said[n]) else "unknown",
            "group": str(n // 3),
        }
        for n, text in enumerate(texts)
    ]


@pytest.fixture
def fitted(model: Any) -> Callable[..., Probes]:
    """Attach probes of random directions; changes as arguments."""

    def make(**changes: Any) -> Probes:
        stream = torch.Generator().manual_seed(3)
        settings: dict[str, Any] = {
            "layers": (1, 2),
            "weight": torch.randn(2, 2, 32, generator=stream) * 0.3,
            "bias": torch.tensor([1.0, 1.0]),
            "penalties": {"general": 2.0, "code": 1.0},
            "position": "both",
            "pool": "mean",
            "trunk": trunk_digest(model),
            "facts": {"answer_tokens": 4, "label": {"label": "contains", "f1": 0.8, "entailment": None}},
        }
        probes = Probes(**(settings | changes))
        attach(model, "probes", probes)
        return probes

    return make


@pytest.fixture
def gate() -> CalibrationGate:
    return CalibrationGate(CalibrationConfig(bootstrap=50))


def rows_of(ctx: Any) -> list[dict[str, Any]]:
    lines = (ctx.folder / "answers.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def test_metrics_are_those_of_the_answers_in_the_evidence(
    context: Any, questions: Any, fitted: Callable[..., Probes], gate: CalibrationGate
) -> None:
    fitted()
    ctx = context({"unknown": questions})
    found = gate.measure(ctx)
    rows = rows_of(ctx)
    right = [int(row["right"]) for row in rows]
    known = sum(row["kind"] == "known" for row in questions)
    assert sum(right) == known > 10 and len(rows) == 60
    scores = [row["confidence"] for row in rows]
    assert found["ece"].value == pytest.approx(float(calibration_error(scores, right)), abs=1e-5)
    assert found["auroc"].value == pytest.approx(float(auroc(scores, right)))
    assert found["auroc_softmax"].value == pytest.approx(float(auroc([row["softmax"] for row in rows], right)))
    assert found["auroc_logprob"].value == pytest.approx(float(auroc([row["log_probability"] for row in rows], right)))
    assert found["brier"].value == pytest.approx(
        sum((s - r) ** 2 for s, r in zip(scores, right, strict=True)) / 60, abs=1e-5
    )
    given = [row["right"] for row in rows if row["answered"]]
    withheld = [row["right"] for row in rows if not row["answered"]]
    assert 0 < len(given) < 60
    assert found["coverage"].value == pytest.approx(len(given) / 60)
    assert found["accuracy_answered"].value == pytest.approx(sum(given) / len(given))
    assert found["justified"].value == pytest.approx(1 - sum(withheld) / len(withheld))
    assert found["coverage_right"].value == pytest.approx(sum(given) / known)


def test_decisions_are_made_on_raw_confidence(
    context: Any, questions: Any, fitted: Callable[..., Probes], gate: CalibrationGate
) -> None:
    fitted(shift=-9.0)
    ctx = context({"unknown": questions})
    assert gate.measure(ctx)["coverage"].value > 0
    assert all(row["answered"] == (row["raw"] > 0.5) for row in rows_of(ctx))
    assert max(row["confidence"] for row in rows_of(ctx)) < 0.5


def test_gains_are_differences_of_the_metrics_and_positive_is_better(
    context: Any, questions: Any, fitted: Callable[..., Probes], gate: CalibrationGate
) -> None:
    fitted()
    found = gate.measure(context({"unknown": questions}))
    assert found["auroc_gain"].value == pytest.approx(found["auroc"].value - found["auroc_softmax"].value)
    assert found["aurc_gain"].value == pytest.approx(found["aurc_softmax"].value - found["aurc"].value)
    low, high = found["aurc_gain"].interval or (math.nan, math.nan)
    assert low < found["aurc_gain"].value < high


def test_a_gain_has_the_spread_of_the_difference_on_the_same_draws(
    context: Any, questions: Any, fitted: Callable[..., Probes], gate: CalibrationGate
) -> None:
    fitted(weight=torch.zeros(2, 2, 32))  # one confidence for all: an AUROC of one half on every draw
    found = gate.measure(context({"unknown": questions}))
    gain, baseline = found["auroc_gain"].interval, found["auroc_softmax"].interval
    assert gain is not None and baseline is not None
    assert gain[1] - gain[0] == pytest.approx(baseline[1] - baseline[0], rel=1e-6)


def test_confident_errors_are_counted_by_domain(
    context: Any, questions: Any, fitted: Callable[..., Probes], gate: CalibrationGate
) -> None:
    fitted(weight=torch.zeros(2, 2, 32), bias=torch.tensor([9.0, 9.0]))
    found = gate.measure(context({"unknown": questions}))
    assert found["confident_wrong"].value == pytest.approx(sum(not row["answer"] for row in questions) / 60)
    wrong = sum(1 for row in questions if row["domain"] == "code" and not row["answer"])
    assert found["confident_wrong/code"].value == pytest.approx(wrong / 30)
    assert found["confident_wrong/code"].n == 30


def test_every_depth_is_measured(
    context: Any, questions: Any, fitted: Callable[..., Probes], gate: CalibrationGate
) -> None:
    fitted()
    found = gate.measure(context({"unknown": questions}))
    assert {name for name in found if name.startswith("auroc/")} == {"auroc/1", "auroc/2"}


def test_documents_carry_values_that_later_stages_can_be_paired_with(
    context: Any, questions: Any, fitted: Callable[..., Probes], gate: CalibrationGate
) -> None:
    fitted()
    first, again = (gate.measure(context({"unknown": questions})) for _ in range(2))
    assert first["brier"].per_document == again["brier"].per_document
    criterion = Criterion(name="kept", metric="brier", at_most=0.0, statistic="difference")
    assert judge(criterion, first, again)[0].verdict == "pass"


def test_stale_probes_are_measured_and_told(
    context: Any, questions: Any, model: Any, fitted: Callable[..., Probes], gate: CalibrationGate
) -> None:
    fitted()
    fresh = gate.measure(context({"unknown": questions}))
    with torch.no_grad():
        model.model.norm.weight[0] += 0.5
    stale = gate.measure(context({"unknown": questions}))
    assert fresh["ece"].evidence["stale"] is False
    assert stale["ece"].evidence["stale"] is True
    assert stale["ece"].missing is None


def test_a_model_without_probes_is_not_measured(context: Any, questions: Any, gate: CalibrationGate) -> None:
    found = gate.measure(context({"unknown": questions}))
    assert found["ece"].missing == "the model has no probes; fit them in a step with objective: probes"


def test_a_domain_that_the_probes_do_not_know_is_not_measured(
    context: Any, questions: Any, fitted: Callable[..., Probes], gate: CalibrationGate
) -> None:
    fitted(penalties={"general": 2.0})
    found = gate.measure(context({"unknown": questions}))
    assert found["auroc"].missing == "the probes have no weight for the domain 'code'"


def test_answers_that_are_all_wrong_rank_nothing(
    context: Any, questions: Any, fitted: Callable[..., Probes], gate: CalibrationGate
) -> None:
    fitted()
    wrong = [{**row, "answer": ""} for row in questions]
    found = gate.measure(context({"unknown": wrong}))
    for name in ("auroc", "aurc", "e_aurc", "aurc_gain", "auroc/1", "auroc_softmax"):
        assert found[name].missing == "the answers are all right or all wrong, so nothing can be ranked"
    assert found["coverage_right"].missing == "no answer was right"
    assert found["ece"].missing is None


def test_kinds_and_documents_choose_the_questions(context: Any, questions: Any, fitted: Callable[..., Probes]) -> None:
    fitted()
    found = CalibrationGate(CalibrationConfig(kinds=("known",), bootstrap=20)).measure(
        context({"unknown": questions}, documents=12)
    )
    assert found["brier"].n == 12
    assert found["coverage_right"].n == 12  # known questions only, which are all answered rightly


def test_measuring_leaves_mode_and_random_streams_as_they_were(
    context: Any, questions: Any, model: Any, fitted: Callable[..., Probes], gate: CalibrationGate
) -> None:
    fitted()
    model.train()
    torch.manual_seed(1)
    expected = torch.rand(1)
    torch.manual_seed(1)
    gate.measure(context({"unknown": questions}))
    assert torch.equal(torch.rand(1), expected)
    assert model.training
