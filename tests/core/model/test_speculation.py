"""Speculative decoding through the library's assisted generation: faster or not, it says what the target says."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from itertools import product
from typing import Any

import pytest
import torch
from phasegate.core.model.companions import trunk_digest
from phasegate.core.model.draft import Draft
from phasegate.core.model.draft_start import DraftShape, build_draft
from phasegate.core.model.seeding import seeded
from scipy.stats import chisquare
from transformers import MixtralConfig, MixtralForCausalLM, OlmoeConfig, OlmoeForCausalLM

Build = Callable[..., Any]
SMALL = {
    "vocab_size": 300,
    "hidden_size": 32,
    "intermediate_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "num_experts_per_tok": 1,
    "initializer_range": 0.3,
    "pad_token_id": 0,
    "eos_token_id": 1,
    "bos_token_id": None,
}


def draft_of(model: Any, proposals: int = 3) -> Draft:
    network = build_draft(model, DraftShape(), seed=1)
    return Draft(network=network, trunk=trunk_digest(model), vocabulary="", proposals=proposals)


def prompts(count: int, below: int = 290) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(11)
    lengths = torch.randint(1, 9, (count,), generator=generator).tolist()
    return [torch.randint(5, below, (1, length), generator=generator) for length in lengths]


def families() -> Mapping[str, Callable[[Build], Any]]:
    return {
        "phasegate_moe": lambda build: build(initializer_range=0.3),
        "mixtral": lambda _: MixtralForCausalLM(MixtralConfig(**SMALL, num_local_experts=3)),
        "olmoe": lambda _: OlmoeForCausalLM(OlmoeConfig(**SMALL, num_experts=3)),
    }


@pytest.mark.parametrize("family", families())
def test_greedy_output_is_the_targets_own_token_by_token(build: Build, family: str) -> None:
    with seeded(0):
        model = families()[family](build).eval()
    assistant = draft_of(model).assistant(model)
    several = 0
    for ids in prompts(100 if family == "phasegate_moe" else 20):
        options = {"attention_mask": torch.ones_like(ids), "do_sample": False, "max_new_tokens": 6}
        alone = model.generate(ids, **options)
        assert torch.equal(model.generate(ids, assistant_model=assistant, **options), alone)
        several += alone.shape[1] > ids.shape[1] + 2
    assert several > 10


def test_a_stale_draft_costs_speed_and_no_token(build: Build) -> None:
    model = build(initializer_range=0.3)
    draft = draft_of(model)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(2))
    assert draft.stale(model)
    for ids in prompts(10):
        options = {"attention_mask": torch.ones_like(ids), "do_sample": False, "max_new_tokens": 8}
        alone = model.generate(ids, **options)
        assert torch.equal(model.generate(ids, assistant_model=draft.assistant(model), **options), alone)


def test_it_proposes_a_constant_number_of_tokens_however_sure_it_is(build: Build, monkeypatch: Any) -> None:
    """The library's defaults are 20 tokens, cut off by a confidence threshold that it adapts from run to run."""
    model = build(initializer_range=0.3)
    draft = draft_of(model, proposals=3)
    assistant: Any = draft.assistant(model)
    counts: list[int] = []
    generate = assistant.generate

    def count(**kwargs: Any) -> Any:
        found = generate(**kwargs)
        counts.append(found.sequences.shape[1] - kwargs["input_ids"].shape[1])
        return found

    monkeypatch.setattr(assistant, "generate", count)
    for ids in prompts(5):
        model.generate(
            ids, assistant_model=assistant, max_new_tokens=40, do_sample=False, eos_token_id=None, pad_token_id=0
        )
        # Near the end only what is left over is proposed.
        assert set(counts[:-4]) == {3} and len(counts) > 8
        counts.clear()
    kept = assistant.generation_config
    assert (kept.num_assistant_tokens, kept.num_assistant_tokens_schedule) == (3, "constant")
    assert kept.assistant_confidence_threshold == 0.0
    assert draft.assistant(model, 5).generation_config.num_assistant_tokens == 5


def test_candidates_that_the_proposer_does_not_serve_come_from_the_library(build: Build) -> None:
    model = build(initializer_range=0.3)
    assistant = draft_of(model).assistant(model)
    ids = prompts(3)[2]
    mask = torch.ones_like(ids)
    mask[0, 0] = 0  # padding on the left
    options = {"attention_mask": mask, "do_sample": False, "max_new_tokens": 8}
    alone = model.generate(ids, **options)
    assert torch.equal(model.generate(ids, assistant_model=assistant, **options), alone)
    options = {"attention_mask": torch.ones_like(ids), "do_sample": False, "max_new_tokens": 8, "min_new_tokens": 4}
    alone = model.generate(ids, **options)
    assert torch.equal(model.generate(ids, assistant_model=assistant, **options), alone)


def test_without_a_target_the_draft_generates_as_any_model(build: Build) -> None:
    assistant: Any = draft_of(build()).assistant(build())
    ids = torch.randint(5, 290, (2, 4))
    found = assistant.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=5, do_sample=False)
    logits = assistant(found[:, :-1]).logits
    assert torch.equal(logits[:, 3:].argmax(-1), found[:, 4:])


VOCABULARY, LENGTH, WARM = 3, 3, 2.0


@pytest.fixture(scope="module")
def target() -> Any:
    """A target of three tokens that says every three of them now and then."""
    config = {**SMALL, "vocab_size": VOCABULARY, "eos_token_id": None, "pad_token_id": None, "initializer_range": 0.1}
    with seeded(33):
        return MixtralForCausalLM(MixtralConfig(**config, num_local_experts=3)).eval()


def fit(target: Any, samples: int, **options: Any) -> float:
    """The p-value of what is sampled with a draft against the target's own distribution of whole continuations."""
    prompt = torch.tensor([[2, 0, 1]])
    said = list(product(range(VOCABULARY), repeat=LENGTH))
    with torch.no_grad():
        rows = torch.cat([prompt.expand(len(said), -1), torch.tensor(said)], dim=1)
        log_p = (target(rows).logits.double() / WARM).log_softmax(-1)[:, 2:-1]  # shape: (27, 3, V)
        expected = log_p.gather(-1, torch.tensor(said)[..., None]).sum((1, 2)).exp() * samples
    assert expected.min() > 5  # or the statistic would not follow its distribution
    draft = draft_of(target, proposals=2)
    with torch.no_grad():
        for parameter in draft.network.parameters():  # far from the target, so that much is rejected
            parameter += torch.randn(parameter.shape, generator=torch.Generator().manual_seed(6))
    assistant = draft.assistant(target)
    counts: Counter[tuple[int, ...]] = Counter()
    with seeded(7):
        for _ in range(samples):
            found = target.generate(
                prompt,
                attention_mask=torch.ones_like(prompt),
                assistant_model=assistant,
                do_sample=True,
                temperature=WARM,
                top_k=0,
                top_p=1.0,
                max_new_tokens=LENGTH,
                **options,
            )
            counts[tuple(found[0, 3:].tolist())] += 1
    return float(chisquare([counts[one] for one in said], expected.numpy()).pvalue)


def test_sampled_output_follows_the_targets_distribution(target: Any) -> None:
    assert fit(target, 400) > 0.001


def test_the_same_test_finds_a_wrong_acceptance_rule(target: Any) -> None:
    """The library's relaxed verification keeps what the draft said more often than the target would."""
    assert fit(target, 400, assistant_ensemble_weight=0.5) < 0.001


@pytest.mark.slow
def test_sampled_output_follows_the_targets_distribution_over_many_samples(target: Any) -> None:
    assert fit(target, 6000) > 0.001
