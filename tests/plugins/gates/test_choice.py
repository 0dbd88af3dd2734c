"""The choice gate."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
import torch
from phasegate.plugins.gates.choice import ChoiceConfig, ChoiceGate


def test_it_reports_accuracy_overall_and_by_domain(context: Any, questions: Any) -> None:
    found = ChoiceGate().measure(context({"choice": questions}))
    assert set(found) == {"acc", "acc/code", "acc/general", "acc_norm", "brier"}
    assert (found["acc"].n, found["acc/code"].n, found["acc/general"].n) == (12, 6, 6)
    whole = (found["acc/code"].value + found["acc/general"].value) / 2
    assert found["acc"].value == pytest.approx(whole)
    assert found["acc"].kind == "proportion"


def test_chance_is_one_over_the_choices(context: Any, questions: Any) -> None:
    found = ChoiceGate().measure(context({"choice": questions}))
    assert found["acc"].chance == pytest.approx(1 / 3)


def test_kinds_and_seen_select_questions(context: Any, questions: Any) -> None:
    ctx = context({"choice": questions})
    assert ChoiceGate(ChoiceConfig(kinds=("head",))).measure(ctx)["acc"].n == 6
    assert ChoiceGate(ChoiceConfig(seen=True)).measure(ctx)["acc"].n == 3


def test_a_number_of_documents_is_a_part_of_all(context: Any, questions: Any) -> None:
    every = ChoiceGate().measure(context({"choice": questions}))["acc"]
    some = ChoiceGate().measure(context({"choice": questions}, documents=5))["acc"]
    assert some.n == 5
    assert some.per_document.items() <= every.per_document.items()


def test_two_models_answer_the_same_documents(context: Any, questions: Any, other_model: Any) -> None:
    first = ChoiceGate().measure(context({"choice": questions}))["brier"]
    second = ChoiceGate().measure(context({"choice": questions}, model=other_model))["brier"]
    assert first.per_document.keys() == second.per_document.keys()
    assert first.value != second.value


def test_answers_are_kept_as_evidence(context: Any, questions: Any) -> None:
    ctx = context({"choice": questions})
    pack = ChoiceGate().measure(ctx)["acc"].evidence["pack"]
    lines = (ctx.folder / pack / "answers.jsonl").read_text(encoding="utf-8").splitlines()
    assert len(lines) == 12
    assert len(json.loads(lines[0])["answers"][0]) == 3


def test_a_missing_view_is_missing_and_not_zero(context: Any) -> None:
    found = ChoiceGate().measure(context({}))
    assert math.isnan(found["acc"].value)
    assert found["acc"].missing == "no source gives the view 'choice'"


def test_an_empty_view_is_missing(context: Any) -> None:
    found = ChoiceGate().measure(context({"choice": []}))
    assert found["brier"].missing == "the data has no heldout rows of view 'choice'"


def test_a_selection_of_nothing_is_missing(context: Any, questions: Any) -> None:
    found = ChoiceGate(ChoiceConfig(kinds=("unheard",))).measure(context({"choice": questions}))
    assert found["acc"].missing is not None and "unheard" in found["acc"].missing


def test_a_model_of_nan_is_missing(context: Any, questions: Any, model: Any) -> None:
    with torch.no_grad():
        model.lm_head.weight[0, 0] = math.nan
    found = ChoiceGate().measure(context({"choice": questions}))
    assert found["acc"].missing == "the model has weights that are not finite numbers"


def test_questions_longer_than_the_context_are_counted(context: Any, questions: Any) -> None:
    long = [row | {"question": row["question"] + " and the cat" * 40} for row in questions]
    found = ChoiceGate().measure(context({"choice": long}))
    assert found["acc"].evidence["truncated"] == 12


def test_choices_longer_than_the_context_are_left_out(context: Any, questions: Any) -> None:
    questions[0]["choices"][1] = "q" * 200
    found = ChoiceGate().measure(context({"choice": questions}))
    assert (found["acc"].n, found["acc"].evidence["left_out"]) == (11, 1)
