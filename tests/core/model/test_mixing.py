"""The platform's model with other mixers and a window: masks, caches, documents, and the dense seed's shared FFNs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from phasegate.core.config.schema import Ref
from phasegate.core.model.builder import ModelContext
from phasegate.core.model.facts import facts_of
from phasegate.core.model.parameters import roles_of, routers_of
from phasegate.registry.current import using
from phasegate.registry.errors import ConfigError, PluginError
from phasegate.registry.registry import Registry
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer, LinearAttentionLayer

Make = Callable[..., Any]


@pytest.fixture
def make(context: Callable[..., ModelContext], registry: Registry) -> Make:
    """Build a model of four layers: ``make("pdr", window=6)``; options of the model by keyword."""

    def build(mixer: str = "pdr", seed: int = 0, mixer_options: dict[str, Any] | None = None, **options: Any) -> Any:
        ready = context(
            options={"gate": "straight-through"},
            mixer=Ref(use=mixer, options=mixer_options or {}),
            num_hidden_layers=options.pop("num_hidden_layers", 4),
            num_experts_per_tok=1,
            max_position_embeddings=64,
        )
        return registry.build("model", "moe", options, context=ready).build(seed).eval()

    return build


@pytest.fixture
def context(registry: Registry) -> Callable[..., ModelContext]:
    def make(options: dict[str, Any], mixer: Ref, **sizes: Any) -> ModelContext:
        sizes.pop("max_position_embeddings")
        derived = {
            "head_dim": 8,
            "hidden_size": 32,
            "initializer_range": 0.06,
            "moe_intermediate_size": 16,
            "num_attention_heads": 4,
            "num_experts": 5,
            **sizes,
        }
        return ModelContext(
            registry=registry,
            router=Ref(use="linear", options=options),
            mixer=mixer,
            derived=derived,
            vocab_size=300,
            sequence_length=64,
        )

    return make


def ids(rows: int = 2, length: int = 24, seed: int = 3) -> torch.Tensor:
    return torch.randint(5, 290, (rows, length), generator=torch.Generator().manual_seed(seed))


def test_one_layer_in_four_keeps_attention_and_looks_back_over_the_window(make: Make) -> None:
    model = make("pdr", window=6)
    assert model.config.layer_types == ["linear_attention"] * 3 + ["sliding_attention"]
    assert model.config.sliding_window == 6
    names = [type(layer.self_attn).__name__ for layer in model.model.layers]
    assert names == ["Pdr", "Pdr", "Pdr", "Qwen3MoeAttention"]


def test_a_window_hides_what_lies_further_back(make: Make) -> None:
    model = make("attention", window=6, attention_every=1, num_hidden_layers=1)
    first, other = ids(1, 20), ids(1, 20)
    other[0, 2] = 299
    with torch.no_grad():
        changed = (model(first).logits - model(other).logits).abs().amax(-1)[0] > 0
    # Token 2 is seen by itself and the five after it: 0 <= t - s < 6.
    assert changed.tolist() == [False] * 2 + [True] * 6 + [False] * 12


@pytest.mark.parametrize("mixer,options", [("pdr", {"window": 6}), ("pdr", {}), ("attention", {"window": 6})])
def test_decoding_with_the_cache_gives_what_one_pass_gives(make: Make, mixer: str, options: dict[str, Any]) -> None:
    model, tokens = make(mixer, **options), ids(2, 24)
    with torch.no_grad():
        whole = model(tokens, use_cache=False).logits
        out = model(tokens[:, :10], use_cache=True)
        parts, cache = [out.logits], out.past_key_values
        for place in range(10, 24):
            out = model(tokens[:, place : place + 1], past_key_values=cache, use_cache=True)
            parts.append(out.logits)
    assert (torch.cat(parts, 1) - whole).abs().max() < 1e-5
    kinds = {"linear_attention": LinearAttentionLayer, "sliding_attention": DynamicSlidingWindowLayer}
    for layer, name in zip(cache.layers, model.config.layer_types, strict=True):
        assert isinstance(layer, kinds.get(name, DynamicLayer))


@pytest.mark.parametrize("mixer", ["pdr", "attention"])
def test_packed_documents_do_not_see_each_other(make: Make, mixer: str) -> None:
    model, tokens = make(mixer, window=6), ids(1, 20)
    positions = torch.cat([torch.arange(8), torch.arange(12)])[None]
    with torch.no_grad():
        packed = model(tokens, position_ids=positions, use_cache=False).logits
        alone = [model(part, use_cache=False).logits for part in (tokens[:, :8], tokens[:, 8:])]
    assert (packed - torch.cat(alone, 1)).abs().max() < 1e-5


def test_padding_on_either_side_changes_nothing(make: Make) -> None:
    model, tokens = make("pdr", window=6), ids(1, 12)
    with torch.no_grad():
        bare = model(tokens).logits
        for left in (True, False):
            side = (5, 0) if left else (0, 5)
            mask = torch.nn.functional.pad(torch.ones_like(tokens), side)
            positions = (mask.cumsum(1) - 1).clamp(min=0)
            padded = model(torch.nn.functional.pad(tokens, side), attention_mask=mask, position_ids=positions).logits
            kept = padded[:, 5:] if left else padded[:, :12]
            assert (kept - bare).abs().max() < 1e-5


def test_generation_is_the_same_with_beams_proposals_and_without_a_cache(make: Make) -> None:
    model, tokens = make("pdr", window=6), ids(1, 9)
    settings: dict[str, Any] = {"max_new_tokens": 16, "do_sample": False, "pad_token_id": 0, "eos_token_id": None}
    mask = torch.ones_like(tokens)
    plain = model.generate(tokens, attention_mask=mask, **settings)
    assert torch.equal(plain, model.generate(tokens, attention_mask=mask, use_cache=False, **settings))
    assert torch.equal(plain, model.generate(tokens, attention_mask=mask, prompt_lookup_num_tokens=4, **settings))
    beams = model.generate(tokens, attention_mask=mask, num_beams=3, **settings)
    assert torch.equal(beams, model.generate(tokens, attention_mask=mask, num_beams=3, use_cache=False, **settings))


def test_a_seed_stores_a_shared_ffn_once_and_uses_it_in_every_layer_of_its_block(make: Make) -> None:
    model = make("pdr", start="dense", dense_layers=(1, 3))
    assert model.config.shared_ffn == [1, None, 3, None]
    assert routers_of(model) == []
    stored = [name for name in model.state_dict() if ".mlp." in name]
    assert {name.split(".")[2] for name in stored} == {"1", "3"}
    before = model(ids()).logits
    with torch.no_grad():
        model.model.layers[3].mlp.down_proj.weight.zero_()
    hidden = torch.randn(1, 2, 32)
    assert not model.model.layers[2].mlp(hidden).any() and model.model.layers[0].mlp(hidden).any()
    assert not torch.equal(before, model(ids()).logits)


def test_in_turn_the_seed_shares_as_the_original_does(make: Make) -> None:
    # Routed layers 0 and 2 are the 0th and 1st, and so use the 0th and 1st dense layer, 1 and 3; block by block it is
    # the next dense layer behind each.
    assert make("pdr", start="dense", dense_layers=(2, 3), sharing="modulo").config.shared_ffn == [2, 3, None, None]
    assert make("pdr", start="dense", dense_layers=(2, 3), sharing="block").config.shared_ffn == [2, 2, None, None]


def test_a_shared_ffn_gets_the_gradients_of_all_layers_that_use_it(make: Make) -> None:
    model = make("attention", start="dense", dense_layers=(3,))
    model.train()
    model(ids(), labels=ids()).loss.backward()
    together = model.model.layers[3].mlp.down_proj.weight.grad.clone()
    model.zero_grad()
    for layer in model.model.layers[:3]:
        layer.mlp.forward = lambda hidden: hidden * 0.0
    model(ids(), labels=ids()).loss.backward()
    assert not torch.allclose(together, model.model.layers[3].mlp.down_proj.weight.grad)


@pytest.mark.parametrize("options", [{}, {"window": 6}, {"start": "dense", "dense_layers": (3,)}])
@pytest.mark.parametrize("mixer", ["pdr", "attention"])
def test_counts_by_arithmetic_are_those_of_the_model(
    mixer: str, options: dict[str, Any], context: Callable[..., ModelContext], registry: Registry
) -> None:
    ready = context({}, Ref(use=mixer), num_hidden_layers=4, num_experts_per_tok=1, max_position_embeddings=64)
    builder = registry.build("model", "moe", options, context=ready)
    with using(registry):
        assert builder.facts() == facts_of(builder.configuration(), 64)
    assert builder.facts().total == builder.build(0).num_parameters()


def test_a_mixers_parameters_are_attention_and_its_norm_a_norm(make: Make) -> None:
    roles = roles_of(make("pdr"))
    assert roles["model.layers.0.self_attn.v_proj.weight"] == "attention"
    assert roles["model.layers.0.self_attn.norm.weight"] == "norm"


@pytest.mark.parametrize(
    "options,told",
    [
        ({"attention_every": 0}, "leaves no layer of 4 with attention"),
        ({"attention_every": 5}, "leaves no layer of 4 with attention"),
        ({"start": "dense", "intermediate_size": 24}, "cannot be cloned from an FFN of width 24"),
        ({"window": 0}, "model.window is 0"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(make: Make, options: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        make("pdr", **options)


def test_an_unknown_mixer_is_named_with_the_nearest(make: Make) -> None:
    with pytest.raises(PluginError, match=r"Unknown mixer 'prd'. Did you mean 'pdr'\?"):
        make("prd")
