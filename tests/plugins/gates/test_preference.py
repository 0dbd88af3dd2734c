"""The preference gate."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from phasegate.evals.criteria import Criterion, judge
from phasegate.plugins.gates.preference import PreferenceGate


@pytest.fixture
def pairs() -> list[dict[str, Any]]:
    return [
        {
            "prompt": [{"role": "user", "content": f"name thing {i}"}],
            "chosen": [{"role": "assistant", "content": "the cat"}],
            "rejected": [{"role": "assistant", "content": "a mat by the sea"}],
            "domain": "general",
            "kind": "value" if i % 2 else "style",
            "truth": "",
        }
        for i in range(6)
    ]


def log_likelihood(model: Any, tokenizer: Any, prompt: str, answer: str) -> float:
    head = tokenizer(prompt)["input_ids"]
    ids = [*head, *tokenizer(answer)["input_ids"]]
    with torch.no_grad():
        scores = torch.log_softmax(model.eval()(torch.tensor([ids])).logits[0], -1)
    return sum(scores[i - 1, ids[i]].item() for i in range(len(head), len(ids)))


def test_the_margin_is_the_difference_of_answer_log_likelihoods(
    context: Any, pairs: Any, model: Any, tokenizer: Any
) -> None:
    found = PreferenceGate().measure(context({"preference": pairs[:1]}))
    prompt = "<user>name thing 0<end><asst>"
    expected = log_likelihood(model, tokenizer, prompt, "the cat<end>") - log_likelihood(
        model, tokenizer, prompt, "a mat by the sea<end>"
    )
    assert found["margin"].value == pytest.approx(expected, rel=1e-4)
    assert found["acc"].value == float(expected > 0)


def test_margins_are_reported_by_kind(context: Any, pairs: Any) -> None:
    found = PreferenceGate().measure(context({"preference": pairs}))
    assert set(found) == {"margin", "margin/style", "margin/value", "acc", "acc/style", "acc/value"}
    assert found["margin/value"].n == 3


def test_winning_against_the_reference_is_the_implicit_reward(
    context: Any, pairs: Any, model: Any, other_model: Any
) -> None:
    new = PreferenceGate().measure(context({"preference": pairs}))
    old = PreferenceGate().measure(context({"preference": pairs}, model=other_model))
    criterion = Criterion(name="dpo", metric="margin", at_least=0.5, statistic="win_rate")
    (found,) = judge(criterion, new, old)
    wins = sum(new["margin"].per_document[key] > value for key, value in old["margin"].per_document.items())
    assert found.value == pytest.approx(wins / 6)


def test_answers_longer_than_the_context_are_left_out(context: Any, pairs: Any) -> None:
    pairs[0]["chosen"][0]["content"] = "cat " * 90
    found = PreferenceGate().measure(context({"preference": pairs}))
    assert (found["margin"].n, found["margin"].evidence["left_out"]) == (5, 1)


def test_a_template_that_rewrites_prompts_is_missing(
    context: Any, pairs: Any, tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tokenizer, "chat_template", "{{ messages | length }}")
    found = PreferenceGate().measure(context({"preference": pairs}))
    assert found["margin"].missing is not None and "template" in found["margin"].missing
