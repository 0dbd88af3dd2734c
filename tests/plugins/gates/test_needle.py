"""The needle gate: pass keys found in long documents, and documents that do not fit."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import pytest
import torch
from phasegate.plugins.gates.needle import NeedleConfig, NeedleGate


@pytest.fixture
def needles() -> list[dict[str, Any]]:
    """Eight documents that end in a question: four short ones, four long ones, the answer the same in two of each."""
    return [
        {
            "text": f"the {'fish ' * (length + number)}the town is",
            "answer": "red" if number % 2 else "old",
            "domain": "general",
            "kind": str(length),
            "depth": number % 2 / 2,
        }
        for length in (4, 30)
        for number in range(4)
    ]


def always_say(model: Any, tokenizer: Any, words: Sequence[str]) -> None:
    """Make a model continue ``is`` by these words and the end of text: every token leads to the next of the chain."""
    chain = [tokenizer.tokenize(" is")[-1], *(t for word in words for t in tokenizer.tokenize(f" {word}")), "<eos>"]
    ids = tokenizer.convert_tokens_to_ids(chain)
    assert len(set(ids)) == len(ids)
    with torch.no_grad():
        for layer in model.model.layers:
            layer.self_attn.o_proj.weight.zero_()
            layer.mlp.experts.down_proj.zero_()
        model.model.embed_tokens.weight.zero_()
        model.lm_head.weight.zero_()
        for place, (before, after) in enumerate(pairwise(ids)):
            model.model.embed_tokens.weight[before, place] = 1.0
            model.lm_head.weight[after, place] = 50.0


def values(found: Any) -> dict[str, float]:
    return {name: measurement.value for name, measurement in found.items() if measurement.missing is None}


def test_keys_are_found_by_length_and_depth(context: Any, needles: Any, model: Any, tokenizer: Any) -> None:
    always_say(model, tokenizer, ["red"])
    found = NeedleGate().measure(context({"needle": needles}))
    assert values(found) == {"acc": 0.5, "acc/30": 0.5, "acc/4": 0.5, "acc/depth-0": 0.0, "acc/depth-0.5": 1.0}
    assert (found["acc"].n, found["acc/30"].n, found["acc/depth-0"].n) == (8, 4, 4)


def test_an_answer_that_goes_on_is_wrong(context: Any, needles: Any, model: Any, tokenizer: Any) -> None:
    always_say(model, tokenizer, ["red", "mat"])
    assert NeedleGate().measure(context({"needle": needles}))["acc"].value == 0.0


def test_text_is_posed_as_it_is_and_not_as_a_dialogue(context: Any, needles: Any, model: Any, tokenizer: Any) -> None:
    always_say(model, tokenizer, ["red"])
    seen: list[int] = []
    handle = model.register_forward_pre_hook(
        lambda _m, _args, kwargs: seen.extend(kwargs["input_ids"].flatten().tolist()), with_kwargs=True
    )
    NeedleGate().measure(context({"needle": needles}))
    handle.remove()
    assert tokenizer.convert_tokens_to_ids("<user>") not in seen


def test_no_document_is_cut_although_the_model_was_trained_on_shorter_ones(
    context: Any, needles: Any, model: Any, tokenizer: Any
) -> None:
    always_say(model, tokenizer, ["red"])
    seen: list[int] = []
    handle = model.register_forward_pre_hook(
        lambda _m, _args, kwargs: seen.append(kwargs["input_ids"].shape[1]), with_kwargs=True
    )
    NeedleGate().measure(context({"needle": needles}, length=16))
    handle.remove()
    assert max(seen) == max(len(tokenizer(row["text"])["input_ids"]) for row in needles) > 16


def test_documents_beyond_the_models_positions_are_not_measured_and_neither_is_what_they_belong_to(
    context: Any, needles: Any, model: Any, tokenizer: Any
) -> None:
    always_say(model, tokenizer, ["red"])
    model.config.max_position_embeddings = 32
    found = NeedleGate().measure(context({"needle": needles}))
    assert values(found) == {"acc/4": 0.5}
    assert found["acc/30"].missing == "4 of 8 documents have more tokens than the model's 32 positions"
    assert found["acc"].missing == found["acc/depth-0"].missing == found["acc/30"].missing


def test_kinds_keep_what_fits_measurable(context: Any, needles: Any, model: Any, tokenizer: Any) -> None:
    always_say(model, tokenizer, ["red"])
    model.config.max_position_embeddings = 32
    found = NeedleGate(NeedleConfig(kinds=("4",))).measure(context({"needle": needles}))
    assert values(found) == {"acc": 0.5, "acc/4": 0.5, "acc/depth-0": 0.0, "acc/depth-0.5": 1.0}


def test_nothing_that_fits_is_missing_with_the_cure(context: Any, needles: Any, model: Any) -> None:
    model.config.max_position_embeddings = 4
    found = NeedleGate().measure(context({"needle": needles}))
    assert set(found) == {"acc"}
    assert found["acc"].missing is not None and "stretch the context first, or choose kinds" in found["acc"].missing


def test_rows_without_a_depth_have_no_table_by_depth(context: Any, needles: Any, model: Any, tokenizer: Any) -> None:
    always_say(model, tokenizer, ["red"])
    bare = [{key: value for key, value in row.items() if key != "depth"} for row in needles]
    assert set(NeedleGate().measure(context({"needle": bare}))) == {"acc", "acc/4", "acc/30"}


def test_a_tokenizer_without_a_template_is_enough(
    context: Any, needles: Any, model: Any, tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    always_say(model, tokenizer, ["red"])
    monkeypatch.setattr(tokenizer, "chat_template", None)
    assert NeedleGate().measure(context({"needle": needles}))["acc"].value == 0.5


def test_data_without_needles_is_missing(context: Any) -> None:
    assert NeedleGate().measure(context({}))["acc"].missing == "no source gives the view 'needle'"
