"""Chat rows as prompts and answers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from phasegate.evals.bridge import evaluate_folder
from phasegate.evals.chat import context_and_answer, question_of, stop_tokens
from phasegate.evals.packs import write_pack

USER = [{"role": "user", "content": "the cat"}]


def generation(tokenizer: Any, model: Any, **changes: Any) -> dict[str, Any]:
    shape = {"until": [], "max_gen_toks": 8, "eos_token_id": stop_tokens(tokenizer, model), "do_sample": False}
    return shape | changes


SAMPLED = {"do_sample": True, "temperature": 1.0, "top_k": 0, "top_p": 1.0}


def rows(count: int) -> list[dict[str, str]]:
    check = json.dumps({"format": "plain"})
    return [{"system": "", "question": f"the cat {i}", "check": check, "kind": "plain"} for i in range(count)]


def answers(model: Any, tokenizer: Any, folder: Path, seed: int = 0, **changes: Any) -> list[str]:
    pack = write_pack(folder, "format", rows(6), generation(tokenizer, model, **changes))
    found = evaluate_folder(model, tokenizer, pack.folder, [pack.task], chat=True, seed=seed)
    return [sample.answers[0][0] for sample in sorted(found.samples[pack.task], key=lambda s: s.doc["question"])]


def test_an_answer_is_rendered_up_to_its_end(tokenizer: Any) -> None:
    found = context_and_answer(tokenizer, USER, [{"role": "assistant", "content": "sat"}])
    assert found == ("<user>the cat<end><asst>", "sat<end>")


def test_a_template_that_rewrites_the_prompt_gives_no_pair(tokenizer: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr(tokenizer, "chat_template", "{{ messages | length }}")
    assert context_and_answer(tokenizer, USER, [{"role": "assistant", "content": "sat"}]) is None


def test_only_one_turn_prompts_are_questions() -> None:
    system = {"role": "system", "content": "be brief"}
    assert question_of(USER) == ("", "the cat")
    assert question_of([system, *USER]) == ("be brief", "the cat")
    assert question_of([*USER, {"role": "assistant", "content": "sat"}, *USER]) is None


def test_the_templates_end_of_turn_stops_an_answer(tokenizer: Any, model: Any) -> None:
    end, eos = tokenizer.convert_tokens_to_ids(["<end>", "<eos>"])
    assert stop_tokens(tokenizer, model) == sorted([end, eos])


def test_greedy_answers_are_the_models_own_row_by_row(model: Any, tokenizer: Any, tmp_path: Path) -> None:
    """In one batch each row must end at its own end token, not at the batch's last."""
    found = answers(model, tokenizer, tmp_path)
    for row, answer in zip(rows(6), found, strict=True):
        prompt = tokenizer(f"<user>{row['question']}<end><asst>", return_tensors="pt")["input_ids"]
        with torch.no_grad():
            out = model.generate(
                prompt, max_new_tokens=8, do_sample=False, eos_token_id=stop_tokens(tokenizer, model), pad_token_id=0
            )
        assert answer == tokenizer.decode(out[0, prompt.shape[1] :], skip_special_tokens=True)


def test_text_behind_an_early_end_is_not_part_of_the_answer(model: Any, tokenizer: Any, tmp_path: Path) -> None:
    """A model that always says <end> at once has nothing but empty answers."""
    end = tokenizer.convert_tokens_to_ids("<end>")
    with torch.no_grad():
        model.lm_head.weight.zero_()
        model.lm_head.weight[end] = 1.0
        model.model.norm.weight.zero_()
    model.lm_head.bias = torch.nn.Parameter(torch.nn.functional.one_hot(torch.tensor(end), 320).float() * 9)
    assert answers(model, tokenizer, tmp_path) == [""] * 6


def test_sampled_answers_depend_on_the_seed_alone(model: Any, tokenizer: Any, tmp_path: Path) -> None:
    first = answers(model, tokenizer, tmp_path, seed=5, **SAMPLED)
    torch.manual_seed(99)
    assert answers(model, tokenizer, tmp_path, seed=5, **SAMPLED) == first
    assert answers(model, tokenizer, tmp_path, seed=6, **SAMPLED) != first
