"""One prompt to one model: which form, how sure by which measure, and whose words they are."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from phasegate.core.config.schema import Ref
from phasegate.core.model.builder import ModelContext
from phasegate.core.model.loading import align_generation
from phasegate.core.model.tokenizer import train_tokenizer
from phasegate.core.run.comparison import ask, experts_used, with_separator
from phasegate.registry.plugins import Plugins
from transformers import PreTrainedModel, PreTrainedTokenizerFast

SIZES = {
    "head_dim": 8,
    "hidden_size": 32,
    "initializer_range": 0.3,
    "moe_intermediate_size": 16,
    "num_attention_heads": 4,
    "num_experts": 5,
    "num_experts_per_tok": 2,
    "num_hidden_layers": 2,
}


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    return train_tokenizer(["the cat sat on the mat", "what is 2 plus 3 ?"] * 4, 290)


@pytest.fixture(scope="module")
def model(tokenizer: PreTrainedTokenizerFast) -> PreTrainedModel:
    registry = Plugins.load(()).components()
    context = ModelContext(
        registry=registry, router=Ref(use="linear"), derived=SIZES, vocab_size=len(tokenizer), sequence_length=32
    )
    built: PreTrainedModel = registry.build("model", "moe", {}, context=context).build(1)
    align_generation(built, tokenizer)
    return built.eval()


def speaking(monkeypatch: pytest.MonkeyPatch, **known: Any) -> list[dict[str, Any]]:
    """Put a speaker in place that has ``known`` to say; what it was asked for is kept."""
    asked: list[dict[str, Any]] = []

    class Speaker:
        def __init__(self, model: Any, tokenizer: Any) -> None:
            self.companions = known.pop("companions", {})

        def stale(self) -> tuple[str, ...]:
            return ("probes",)

        def generate(self, ids: torch.Tensor, **options: Any) -> SimpleNamespace:
            asked.append(options)
            answers = {"texts": ("so it is",), "vetoed": torch.tensor([False]), "abstained": None, "confidence": None}
            return SimpleNamespace(sequences=torch.cat([ids, torch.tensor([[7, 8, 9]])], 1), **(answers | known))

    monkeypatch.setattr("phasegate.core.model.speaker.Speaker", Speaker)
    return asked


def test_without_probes_the_confidence_is_the_mean_of_the_largest_probabilities(model: Any, tokenizer: Any) -> None:
    said = ask(model, tokenizer, "the cat", "continuation", 3)
    given = torch.tensor([with_separator(tokenizer, "the cat")])
    whole = model.generate(input_ids=given, do_sample=False, max_new_tokens=3)
    with torch.inference_mode():
        probabilities = model(input_ids=whole).logits[0, given.shape[1] - 1 : -1].softmax(-1)
    largest = probabilities.max(-1)
    assert largest.indices.tolist() == whole[0, given.shape[1] :].tolist()
    assert said.measure == "max softmax"
    assert said.confidence == pytest.approx(float(largest.values.mean()), abs=1e-5)


def test_probes_speak_for_a_dialogue(model: Any, tokenizer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    known = {"confidence": torch.tensor([0.25]), "abstained": torch.tensor([True])}
    asked = speaking(monkeypatch, companions={"probes": object()}, **known)
    said = ask(model, tokenizer, "the cat", "chat", 3, domain="medical")
    assert (said.confidence, said.measure, said.abstains) == (0.25, "probes", True)
    assert asked[0]["confidence"] is True and asked[0]["do_sample"] is False
    assert asked[0]["domain"] == "medical"
    assert said.stale == ("probes",)


def test_probes_do_not_speak_for_a_continuation_that_they_were_not_fitted_to(
    model: Any, tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = speaking(monkeypatch, companions={"probes": object()})
    assert ask(model, tokenizer, "the cat", "continuation", 3).measure == "max softmax"
    assert asked[0]["confidence"] is False


def test_a_refusal_in_place_of_an_answer_has_no_confidence(
    model: Any, tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    speaking(monkeypatch, vetoed=torch.tensor([True]))
    said = ask(model, tokenizer, "the cat", "chat", 3)
    assert (said.vetoed, said.confidence, said.measure) == (True, None, "")


def test_a_text_is_continued_behind_the_separator_as_in_training(tokenizer: Any) -> None:
    assert with_separator(tokenizer, "the cat")[0] == tokenizer.eos_token_id
    assert with_separator(tokenizer, "the cat")[1:] == tokenizer("the cat")["input_ids"]


def test_shares_of_experts_are_those_of_the_routers_the_busiest_first(model: Any) -> None:
    seen: dict[int, torch.Tensor] = {}
    ids = [5, 9, 11, 9, 30, 7]
    handles = [
        layer.mlp.gate.register_forward_hook(lambda _m, _i, out, at=at: seen.update({at: out[2]}))
        for at, layer in enumerate(model.model.layers)
    ]
    with torch.inference_mode():
        model(input_ids=torch.tensor([ids]))
    for handle in handles:
        handle.remove()
    used = experts_used(model, ids)
    for at, shares in used.items():
        counts = torch.bincount(seen[at].ravel(), minlength=5) / 12  # six tokens, two experts each
        assert shares == {expert: pytest.approx(float(counts[expert]), abs=1e-4) for expert in shares}
        assert sum(shares.values()) == pytest.approx(1.0, abs=1e-3)
        assert list(shares.values()) == sorted(shares.values(), reverse=True)


def test_asking_leaves_no_trace(model: Any, tokenizer: Any) -> None:
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    ask(model, tokenizer, "the cat", "chat", 3)
    assert torch.equal(torch.rand(1), expected)
    assert all(torch.equal(state[name], tensor) for name, tensor in model.state_dict().items())
