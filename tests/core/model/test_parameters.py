from __future__ import annotations

from typing import Any

import pytest
import torch
from phasegate.core.config.roles import ROLES
from phasegate.core.model.parameters import expert_parameters, roles_of, routers_of
from phasegate.registry.errors import ConfigError
from transformers import AutoConfig, AutoModelForCausalLM


def names(model: Any, role: str) -> set[str]:
    return {name.removeprefix("model.layers.0.") for name, found in roles_of(model).items() if found == role}


def test_every_parameter_of_a_tied_moe_has_its_role(build: Any) -> None:
    model = build(num_hidden_layers=1)
    assert names(model, "router") == {"mlp.gate.weight"}
    assert names(model, "experts") == {"mlp.experts.gate_up_proj", "mlp.experts.down_proj"}
    assert names(model, "embedding") == {"model.embed_tokens.weight"}
    assert names(model, "attention") == {f"self_attn.{part}_proj.weight" for part in "qkvo"}
    assert names(model, "norm") == {
        "input_layernorm.weight",
        "model.norm.weight",
        "post_attention_layernorm.weight",
        "self_attn.k_norm.weight",
        "self_attn.q_norm.weight",
    }
    assert names(model, "head") == names(model, "ffn") == names(model, "other") == names(model, "probes") == set()


def test_an_untied_head_and_dense_layers_have_their_roles(build: Any) -> None:
    model = build(options={"tie_word_embeddings": False, "dense_layers": [0]})
    assert names(model, "head") == {"lm_head.weight"}
    assert names(model, "ffn") == {"mlp.down_proj.weight", "mlp.gate_proj.weight", "mlp.up_proj.weight"}


def test_probes_are_found_by_the_name_of_their_module(build: Any) -> None:
    model = build()
    model.probes = torch.nn.Linear(4, 1)
    assert names(model, "probes") == {"probes.bias", "probes.weight"}


def test_roles_follow_the_order_of_the_parameters(build: Any) -> None:
    model = build()
    assert list(roles_of(model)) == [name for name, _ in model.named_parameters()]
    assert set(roles_of(model).values()) <= set(ROLES)


def test_routers_come_in_layer_order_and_skip_dense_layers(build: Any) -> None:
    model = build(num_hidden_layers=12, options={"dense_layers": [1]})
    found = routers_of(model)
    assert [layer for _, layer, _ in found] == [0, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11]
    assert found[1][0] == "model.layers.2.mlp.gate"
    assert all(module is model.get_submodule(name) for name, _, module in found)


def test_stacked_experts_are_listed_by_name(build: Any) -> None:
    model = build()
    stacked = expert_parameters(model)
    assert stacked[:2] == ["model.layers.0.mlp.experts.gate_up_proj", "model.layers.0.mlp.experts.down_proj"]
    assert [model.get_parameter(name).shape[0] for name in stacked] == [5, 5, 5, 5]


def tiny(family: str, **changes: Any) -> Any:
    sizes = {
        "hidden_size": 16,
        "num_attention_heads": 2,
        "num_hidden_layers": 1,
        "num_key_value_heads": 2,
        "pad_token_id": 0,
        "vocab_size": 32,
    }
    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(AutoConfig.for_model(family, **sizes, **changes))


def test_a_dense_model_has_no_routers_and_no_experts() -> None:
    model = tiny("llama", intermediate_size=16)
    assert routers_of(model) == []
    assert expert_parameters(model) == []


def test_an_moe_with_an_unknown_router_is_an_error() -> None:
    model = tiny("glm4_moe", moe_intermediate_size=8, n_routed_experts=4, first_k_dense_replace=0)
    with pytest.raises(ConfigError, match=r"Glm4MoeForCausalLM.*flex_olmo, mixtral, olmoe, qwen2_moe or qwen3_moe"):
        routers_of(model)
