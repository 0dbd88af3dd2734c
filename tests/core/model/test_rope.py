"""Stretching rotary positions: the same weights, other frequencies, once and for all."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from phasegate.core.config.context import implied_factor, ntk_base
from phasegate.core.config.schema import ContextSection
from phasegate.core.model.companions import companions_of
from phasegate.core.model.exporting import export_model
from phasegate.core.model.loading import load_model, save_model
from phasegate.core.model.rope import extend_context
from phasegate.registry.errors import ConfigError
from transformers import AutoModelForCausalLM, PreTrainedModel

NTK2, NTK4 = ContextSection(rope="ntk", factor=2), ContextSection(rope="ntk", factor=4)
YARN4, LINEAR4 = ContextSection(rope="yarn", factor=4), ContextSection(rope="linear", factor=4)
ABF = ContextSection(rope="abf", theta=500_000.0)
ALL = pytest.mark.parametrize("stretch", [NTK4, YARN4, LINEAR4, ABF], ids=lambda stretch: stretch.rope)

LONG = torch.randint(5, 290, (2, 120), generator=torch.Generator().manual_seed(3))


def logits(model: PreTrainedModel, ids: torch.Tensor = LONG) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = model(input_ids=ids).logits
    return found


def frequencies(model: Any) -> torch.Tensor:
    found: torch.Tensor = model.model.rotary_emb.inv_freq
    return found


@pytest.mark.parametrize(("factor", "base"), [(2, 20_221), (4, 40_890)])
def test_ntk_gives_the_bases_of_the_paper_at_head_size_128(factor: float, base: float) -> None:
    assert round(ntk_base(10_000, factor, 128)) == base


def test_ntk_at_head_size_16_is_the_factor_to_the_eight_sevenths() -> None:
    # 4^(16/14) = 4 * 2^(2/7) = 4 * 1.2190137
    assert ntk_base(10_000, 4, 16) == pytest.approx(48_760.55, abs=0.05)


def test_a_base_implies_the_factor_by_which_ntk_would_give_it() -> None:
    assert implied_factor(ntk_base(10_000, 4, 16), 10_000, 16) == pytest.approx(4)
    assert implied_factor(500_000, 10_000, 128) == pytest.approx(50 ** (126 / 128))


def test_ntk_keeps_the_fastest_frequency_and_slows_the_slowest_by_the_factor(build: Callable[..., Any]) -> None:
    model = build()
    before = frequencies(model).clone()
    after = frequencies(extend_context(model, NTK4, 128))
    assert float(after[0]) == float(before[0]) == 1.0
    assert float(after[-1]) == pytest.approx(float(before[-1]) / 4, rel=1e-5)
    assert model.config.rope_parameters["rope_theta"] == pytest.approx(ntk_base(10_000, 4, 8))


def test_linear_slows_all_frequencies_by_the_factor(build: Callable[..., Any]) -> None:
    model = build()
    before = frequencies(model).clone()
    torch.testing.assert_close(frequencies(extend_context(model, LINEAR4, 128)), before / 4)


def test_yarn_counts_from_the_first_length_and_warms_attention(build: Callable[..., Any]) -> None:
    model = extend_context(build(), YARN4, 128)
    assert model.config.rope_parameters["original_max_position_embeddings"] == 32
    # 0.1 ln 4 + 1 (YaRN, section 3.4)
    assert model.model.rotary_emb.attention_scaling == pytest.approx(1.138629)


@ALL
def test_weights_keep_their_bits_and_long_positions_change(build: Callable[..., Any], stretch: ContextSection) -> None:
    model, twin = build(), build()
    extended = extend_context(model, stretch, 120)
    assert extended is model
    assert model.config.max_position_embeddings == (120 if stretch is ABF else 128)
    assert all(torch.equal(a, b) for a, b in zip(model.state_dict().values(), twin.state_dict().values(), strict=True))
    assert set(model.state_dict()) == set(twin.state_dict())
    changed = (logits(model) - logits(twin)).abs().amax(dim=(0, 2))  # shape: (120,)
    assert changed[0] < 1e-5 or stretch is YARN4  # at position 0 nothing turns
    assert changed[100:].min() > 1e-3


@ALL
def test_a_stretched_model_computes_the_same_bits_after_saving_and_loading(
    build: Callable[..., Any], stretch: ContextSection, tokenizer: Any, registry: Any, tmp_path: Path
) -> None:
    model = extend_context(build(), stretch, 120)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        save_model(model, tokenizer, tmp_path)
        again = load_model(tmp_path, registry)
    assert torch.equal(frequencies(again), frequencies(model))
    assert torch.equal(logits(again), logits(model))
    assert again.config.max_position_embeddings == model.config.max_position_embeddings


@ALL
def test_an_exported_stretched_model_is_read_by_plain_transformers(
    build: Callable[..., Any], stretch: ContextSection, tokenizer: Any, registry: Any, tmp_path: Path
) -> None:
    model = extend_context(build(num_experts_per_tok=1), stretch, 120)
    save_model(model, tokenizer, tmp_path / "saved")
    report = export_model(tmp_path / "saved", tmp_path / "exported", registry)
    assert report.model_type == "qwen3_moe"
    plain = AutoModelForCausalLM.from_pretrained(tmp_path / "exported").eval()
    assert torch.equal(frequencies(plain), frequencies(model))
    torch.testing.assert_close(logits(plain), logits(model), rtol=0, atol=1e-5)


@ALL
def test_the_same_target_twice_changes_nothing(
    build: Callable[..., Any], stretch: ContextSection, tokenizer: Any, registry: Any, tmp_path: Path
) -> None:
    model = extend_context(build(), stretch, 120)
    once, settings = logits(model), model.config.to_dict()
    assert torch.equal(logits(extend_context(model, stretch, 120)), once)
    assert model.config.to_dict() == settings
    save_model(model, tokenizer, tmp_path)
    later = extend_context(load_model(tmp_path, registry), stretch, 120)
    assert torch.equal(logits(later), once)


def test_a_later_factor_counts_from_the_first_length_and_not_from_the_step_before(build: Callable[..., Any]) -> None:
    staged = extend_context(extend_context(build(), NTK2, 64), NTK4, 128)
    direct = extend_context(build(), NTK4, 128)
    assert torch.equal(frequencies(staged), frequencies(direct))
    assert staged.config.max_position_embeddings == 128
    other = extend_context(extend_context(build(), NTK2, 64), YARN4, 128)
    assert torch.equal(frequencies(other), frequencies(extend_context(build(), YARN4, 128)))


def test_a_model_that_reaches_further_is_left_as_it_is(build: Callable[..., Any]) -> None:
    model = extend_context(build(), NTK4, 128)
    kept = frequencies(model).clone()
    extend_context(model, NTK2, 64)  # as when a phase is extended and its steps come again
    assert torch.equal(frequencies(model), kept)
    assert model.config.max_position_embeddings == 128


def test_keep_keeps_everything(build: Callable[..., Any]) -> None:
    model = build()
    settings, module = model.config.to_dict(), model.model.rotary_emb
    assert extend_context(model, ContextSection(), 4096) is model
    assert model.config.to_dict() == settings
    assert model.model.rotary_emb is module


def test_what_travels_with_the_model_stays_with_it(build: Callable[..., Any]) -> None:
    model = build()
    model.__dict__["_phasegate_companions"] = {"probes": "something fitted"}
    assert companions_of(extend_context(model, NTK4, 128)) == {"probes": "something fitted"}


def test_generation_with_a_cache_equals_generation_without(build: Callable[..., Any]) -> None:
    model = extend_context(build(), NTK4, 128)
    settings = {"max_new_tokens": 20, "do_sample": False, "pad_token_id": 0}
    cached = model.generate(LONG[:1, :60], use_cache=True, **settings)
    assert torch.equal(cached, model.generate(LONG[:1, :60], use_cache=False, **settings))


@pytest.mark.parametrize("family", ["mixtral", "olmoe", "qwen3_moe"])
@pytest.mark.parametrize("stretch", [NTK4, YARN4, LINEAR4], ids=lambda stretch: stretch.rope)
def test_stock_families_are_stretched_alike(
    family: str, stretch: ContextSection, tokenizer: Any, registry: Any, tmp_path: Path, context: Any
) -> None:
    ready = context()
    model = ready.registry.build("model", "stock", {"family": family}, context=ready).build(0).eval()
    before = logits(model)
    extend_context(model, stretch, 128)
    assert (logits(model) - before)[:, 100:].abs().max() > 1e-4
    save_model(model, tokenizer, tmp_path)
    assert torch.equal(logits(load_model(tmp_path, registry)), logits(model))


@pytest.mark.parametrize(
    ("stretch", "length", "words"),
    [
        (NTK2, 65, "built for 32 positions to 64, but the step trains on 65; raise context.factor"),
        (ContextSection(rope="abf", theta=20_000.0), 120, "raise context.theta"),
        (ContextSection(rope="abf", theta=5_000.0), 32, "which is 10000 in this model, but context.theta is 5000"),
    ],
)
def test_a_length_out_of_reach_is_refused(
    build: Callable[..., Any], stretch: ContextSection, length: int, words: str
) -> None:
    model = build()
    settings = model.config.to_dict()
    with pytest.raises(ConfigError, match=words):
        extend_context(model, stretch, length)
    assert model.config.to_dict() == settings


def test_a_scaled_type_is_not_laid_over_another(build: Callable[..., Any]) -> None:
    model = build()
    model.config.rope_parameters = {"rope_type": "linear", "rope_theta": 10_000.0, "factor": 2.0}
    with pytest.raises(ConfigError, match="are of the type linear already; use ntk or abf"):
        extend_context(model, YARN4, 128)
    assert extend_context(model, NTK4, 128).config.rope_parameters["factor"] == 2.0


def test_a_model_without_rotary_positions_is_refused() -> None:
    from transformers import GPT2Config, GPT2LMHeadModel

    model = GPT2LMHeadModel(GPT2Config(n_embd=8, n_layer=1, n_head=2, vocab_size=20))
    with pytest.raises(ConfigError, match="which GPT2LMHeadModel does not have"):
        extend_context(model, NTK2, 64)
