from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
import torch
from phasegate.core.model.parameters import roles_of, routers_of
from phasegate.registry.errors import ConfigError, PluginError, StoreError

FAMILIES = ("mixtral", "olmoe", "qwen3_moe")


def builder(context: Any, use: str = "moe", options: Any = None, **changes: Any) -> Any:
    ready = context(**changes)
    return ready.registry.build("model", use, options or {}, context=ready)


def test_equal_seeds_give_equal_bits_whatever_ran_before(context: Any) -> None:
    first = builder(context).build(3).state_dict()
    torch.manual_seed(99)
    torch.rand(5)
    second = builder(context).build(3).state_dict()
    assert all(torch.equal(first[key], second[key]) for key in first)


def test_other_seeds_give_other_weights(context: Any) -> None:
    first, second = (builder(context).build(seed).state_dict() for seed in (3, 4))
    assert not torch.equal(first["model.embed_tokens.weight"], second["model.embed_tokens.weight"])


@pytest.mark.parametrize(("use", "options"), [("moe", {}), ("stock", {"family": "mixtral"})])
def test_building_leaves_global_random_state_alone(context: Any, use: str, options: Any) -> None:
    torch.manual_seed(5)
    random.seed(5)
    expected = (torch.get_rng_state(), random.getstate())
    builder(context, use, options).build(3)
    assert torch.equal(torch.get_rng_state(), expected[0])
    assert random.getstate() == expected[1]


def test_facts_agree_with_a_count_by_hand(context: Any) -> None:
    # d 32, 2 layers, 4 heads of 8, 5 experts of 16, top-2, vocabulary 300, context 32.
    facts = builder(context).facts()
    attention = 2 * 4 * 32 * 32
    experts = 2 * 5 * 3 * 32 * 16
    router = 2 * 5 * 32
    norm = 2 * (2 * 32 + 2 * 8) + 32
    embedding = 300 * 32
    assert facts.by_role == {
        "attention": attention,
        "embedding": embedding,
        "experts": experts,
        "norm": norm,
        "router": router,
    }
    assert facts.total == attention + experts + router + norm + embedding
    assert facts.active == facts.total - experts * 3 // 5
    matmul = attention + experts * 2 // 5 + router + embedding
    assert facts.flops_per_token == 6 * matmul + 12 * 2 * 4 * 8 * 32


def test_facts_count_the_parameters_that_are_built(context: Any) -> None:
    for use, options in (("moe", {"dense_layers": [1]}), *(("stock", {"family": family}) for family in FAMILIES)):
        ready = builder(context, use, options)
        assert ready.facts().total == sum(p.numel() for p in ready.build(0).parameters())


def test_facts_of_a_huge_model_allocate_nothing(context: Any) -> None:
    facts = builder(
        context, hidden_size=8192, num_hidden_layers=8, num_experts=128, moe_intermediate_size=8192, vocab_size=100_000
    ).facts()
    assert facts.total > 200e9


def test_options_win_over_what_the_size_derives(context: Any) -> None:
    config = builder(context, options={"num_experts": 7, "num_key_value_heads": 2, "rope_theta": 500.0}).build(0).config
    assert (config.num_experts, config.hidden_size, config.num_key_value_heads) == (7, 32, 2)
    assert config.rope_parameters == {"rope_type": "default", "rope_theta": 500.0}
    assert config.max_position_embeddings == 32


def test_a_dense_layer_is_as_wide_as_the_experts_one_token_passes(context: Any) -> None:
    model = builder(context, options={"dense_layers": [0]}).build(0)
    assert model.model.layers[0].mlp.up_proj.weight.shape == (2 * 16, 32)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_key_value_heads": 3}, r"4 attention heads cannot share 3"),
        ({"head_dim": 7}, r"head_dim is 7"),
        ({"num_experts_per_tok": 6}, r"6 of 5 experts"),
        ({"dense_layers": [0, 1]}, r"at least one"),
        ({"dense_layers": [2]}, r"from 0 to 1"),
        ({"num_experts": 0}, r"num_experts is 0"),
        ({"hiden_size": 8}, r"hidden_size"),
    ],
)
def test_sizes_that_do_not_fit_are_errors(context: Any, options: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        builder(context, options=options)


def test_a_misspelt_router_is_an_error_before_anything_is_built(context: Any) -> None:
    with pytest.raises(PluginError, match=r"liner.*linear"):
        builder(context, router="liner").facts()


def test_a_misspelt_router_option_is_an_error_before_anything_is_built(context: Any) -> None:
    with pytest.raises(ConfigError, match=r"gat.*gate"):
        builder(context, options=None, router="linear").context.registry.config("router", "linear", {"gat": "softmax"})


@pytest.mark.parametrize("family", FAMILIES)
def test_a_stock_family_builds_with_known_routers_and_without_its_auxiliary_loss(context: Any, family: str) -> None:
    model = builder(context, "stock", {"family": family}).build(0)
    assert model.config.model_type == family
    assert (model.config.router_aux_loss_coef, model.router_aux_loss_coef) == (0.0, 0.0)
    assert [layer for _, layer, _ in routers_of(model)] == [0, 1]
    assert (model.config.hidden_size, model.config.num_local_experts) == (32, 5)
    assert set(roles_of(model).values()) == {"attention", "embedding", "experts", "head", "norm", "router"}
    ids = torch.arange(5, 25)[None]
    logits, weights, index = routers_of(model)[0][2](torch.ones(20, 32))
    assert (logits.shape, weights.shape, index.shape) == ((20, 5), (20, 2), (20, 2))
    assert torch.isfinite(model(ids, labels=ids).loss)


def test_overrides_reach_a_stock_family(context: Any) -> None:
    model = builder(context, "stock", {"family": "olmoe", "overrides": {"num_experts": 3}}).build(0)
    assert model.model.layers[0].mlp.experts.gate_up_proj.shape[0] == 3


def test_a_stock_checkpoint_is_read_from_its_folder(context: Any, tmp_path: Path) -> None:
    made = builder(context, "stock", {"family": "mixtral"}).build(1)
    made.save_pretrained(tmp_path / "published")
    read = builder(context, "stock", {"path": "published"}, base=tmp_path).build(0)
    weights = made.state_dict()
    assert all(torch.equal(value, weights[key]) for key, value in read.state_dict().items())
    assert builder(context, "stock", {"path": "published"}, base=tmp_path).facts().total == made.num_parameters()


def test_overrides_that_change_a_checkpoints_shape_are_refused(context: Any, tmp_path: Path) -> None:
    builder(context, "stock", {"family": "qwen3_moe"}).build(1).save_pretrained(tmp_path)
    grown = builder(context, "stock", {"path": str(tmp_path), "overrides": {"num_hidden_layers": 3}})
    with pytest.raises(StoreError, match=r"missing weights"):
        grown.build(0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, r"family or model.path"),
        ({"family": "mixtrl"}, r"family"),
        ({"family": "olmoe", "overrides": {"num_expert": 3}}, r"num_expert.*num_experts"),
        ({"path": "/nowhere/at/all"}, r"no readable model configuration"),
    ],
)
def test_a_stock_model_that_cannot_be_is_an_error(context: Any, options: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        builder(context, "stock", options).facts()


def test_a_checkpoint_of_another_family_is_an_error(context: Any, tmp_path: Path) -> None:
    builder(context, "stock", {"family": "olmoe"}).configuration().save_pretrained(tmp_path)
    with pytest.raises(ConfigError, match=r"olmoe model, not mixtral"):
        builder(context, "stock", {"family": "mixtral", "path": str(tmp_path)}).facts()


def test_a_tokenizer_larger_than_the_checkpoint_is_an_error(context: Any, tmp_path: Path) -> None:
    builder(context, "stock", {"family": "olmoe"}).configuration().save_pretrained(tmp_path)
    with pytest.raises(ConfigError, match=r"301 tokens.*300"):
        builder(context, "stock", {"path": str(tmp_path)}, vocab_size=301).facts()


def test_a_router_component_beside_a_stock_family_is_an_error(context: Any) -> None:
    with pytest.raises(ConfigError, match=r"family's own router"):
        builder(context, "stock", {"family": "olmoe"}, router="torus")
