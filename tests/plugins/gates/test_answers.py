"""The format and judge gates: what a model writes, scored."""

from __future__ import annotations

import json
import math
from itertools import pairwise
from typing import Any

import pytest
import torch
from phasegate.plugins.gates.format import FormatConfig, FormatGate
from phasegate.plugins.gates.judge import JudgeGate


def user(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


@pytest.fixture
def chats() -> list[dict[str, Any]]:
    answer = [{"role": "assistant", "content": "cat"}]
    kinds = ["plain", "upper"]
    return [
        {
            "prompt": user(f"name thing {i}"),
            "completion": answer,
            "domain": "general",
            "kind": kinds[i % 2],
            "check": json.dumps({"format": kinds[i % 2]}),
        }
        for i in range(8)
    ]


@pytest.fixture
def preferences() -> list[dict[str, Any]]:
    return [
        {
            "prompt": user(f"name thing {i}"),
            "chosen": [{"role": "assistant", "content": "cat"}],
            "rejected": [{"role": "assistant", "content": "mat"}],
            "domain": "general",
            "kind": "value" if i % 2 else "style",
            "truth": json.dumps({"value": "cat", "good": ["cat"], "bad": [], "others": ["mat"]}),
        }
        for i in range(8)
    ]


def always_say(model: Any, tokenizer: Any, word: str) -> None:
    """Make a model answer ``word`` and stop: every token leads to the next one of the chain."""
    chain = tokenizer.convert_tokens_to_ids(["<asst>", *tokenizer.tokenize(word), "<end>"])
    with torch.no_grad():
        for layer in model.model.layers:
            layer.self_attn.o_proj.weight.zero_()
            layer.mlp.experts.down_proj.zero_()
        model.model.embed_tokens.weight.zero_()
        model.lm_head.weight.zero_()
        for place, (before, after) in enumerate(pairwise(chain)):
            model.model.embed_tokens.weight[before, place] = 1.0
            model.lm_head.weight[after, place] = 50.0


def test_format_is_checked_on_the_models_own_answer(context: Any, chats: Any, model: Any, tokenizer: Any) -> None:
    always_say(model, tokenizer, "cat")
    found = FormatGate().measure(context({"chat": chats}))
    assert {name: m.value for name, m in found.items()} == {"acc": 0.5, "acc/plain": 1.0, "acc/upper": 0.0}


def test_rows_without_a_check_are_left_out(context: Any, chats: Any) -> None:
    for row in chats[:3]:
        row["check"] = ""
    assert FormatGate().measure(context({"chat": chats}))["acc"].n == 5


def test_conversations_of_several_turns_are_left_out_and_counted(context: Any, chats: Any) -> None:
    chats[0]["prompt"] = [*user("hi"), {"role": "assistant", "content": "yes"}, *user("go on")]
    found = FormatGate().measure(context({"chat": chats}))
    assert (found["acc"].n, found["acc"].evidence["left_out"]) == (7, 1)


def test_chats_without_any_check_are_missing(context: Any, chats: Any) -> None:
    found = FormatGate().measure(context({"chat": [row | {"check": ""} for row in chats]}))
    assert found["acc"].missing is not None and "'check'" in found["acc"].missing


def test_a_tokenizer_without_a_template_is_missing(
    context: Any, chats: Any, tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tokenizer, "chat_template", None)
    assert FormatGate().measure(context({"chat": chats}))["acc"].missing == "the tokenizer has no chat template"


def test_a_prompt_as_long_as_the_context_is_not_cut(context: Any, chats: Any, model: Any, tokenizer: Any) -> None:
    """lm-eval cuts prompts to the context length minus the answer's, from the left and without a word."""
    always_say(model, tokenizer, "cat")
    long = [row | {"prompt": user(row["prompt"][0]["content"] + " the cat" * 20)} for row in chats]
    ctx = context({"chat": long}, length=40)
    seen: list[int] = []
    handle = model.register_forward_pre_hook(
        lambda _m, _args, kwargs: seen.append(kwargs["input_ids"].shape[1]), with_kwargs=True
    )
    found = FormatGate(FormatConfig(answer_tokens=16)).measure(ctx)
    handle.remove()
    longest = max(
        len(tokenizer.apply_chat_template(row["prompt"], add_generation_prompt=True)["input_ids"]) for row in long
    )
    assert max(seen) == longest > 40
    assert found["acc/plain"].value == 1.0


def test_the_judge_scores_against_ground_truth(context: Any, preferences: Any, model: Any, tokenizer: Any) -> None:
    always_say(model, tokenizer, "cat")
    found = JudgeGate().measure(context({"preference": preferences}))
    assert {name: m.value for name, m in found.items()} == {"score": 1.0, "score/style": 1.0, "score/value": 1.0}


def test_the_judge_samples_the_same_answers_again(context: Any, preferences: Any, tmp_path: Any) -> None:
    ctx = context({"preference": preferences})
    pack = ctx.folder / JudgeGate().measure(ctx)["score"].evidence["pack"] / "answers.jsonl"
    first = pack.read_text(encoding="utf-8")
    torch.manual_seed(5)
    JudgeGate().measure(ctx)
    assert pack.read_text(encoding="utf-8") == first


def test_sampling_draws_from_the_whole_vocabulary(context: Any, preferences: Any, model: Any) -> None:
    """A uniform model under the library's default of fifty candidates would repeat itself."""
    with torch.no_grad():
        model.lm_head.weight.zero_()
    ctx = context({"preference": preferences})
    pack = ctx.folder / JudgeGate().measure(ctx)["score"].evidence["pack"] / "answers.jsonl"
    answers = [json.loads(line)["answers"][0][0] for line in pack.read_text(encoding="utf-8").splitlines()]
    assert len(set("".join(answers))) > 50


def test_preferences_without_truth_are_missing(context: Any, preferences: Any) -> None:
    found = JudgeGate().measure(context({"preference": [row | {"truth": ""} for row in preferences]}))
    assert math.isnan(found["score"].value)
    assert found["score"].missing is not None and "'truth'" in found["score"].missing
