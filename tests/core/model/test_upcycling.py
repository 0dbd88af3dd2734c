"""Upcycling: the MoE computes what the dense model computes, and what cannot be upcycled is refused."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from phasegate.core.model.anchors import Guard
from phasegate.core.model.companions import attach, companions_of
from phasegate.core.model.configuration import PhasegateMoeConfig
from phasegate.core.model.loading import read_model
from phasegate.core.model.modeling import PhasegateMoeForCausalLM
from phasegate.core.model.parameters import routers_of
from phasegate.core.model.upcycling import SIBLINGS, clone, difference, learns, sibling_config, upcycle, upcycle_own
from phasegate.registry.errors import ConfigError
from torch import nn
from transformers import CONFIG_MAPPING, AutoModelForCausalLM, GPT2Config, MixtralConfig, PreTrainedModel

# Nothing here is a default of any family.
SIZES: dict[str, Any] = {
    "vocab_size": 300,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 77,
    "initializer_range": 0.11,
    "rms_norm_eps": 3e-4,
    "rope_parameters": {"rope_type": "default", "rope_theta": 777.0},
    "pad_token_id": 3,
    "bos_token_id": 4,
    "eos_token_id": 2,
}
HEAD = {"head_dim": 12}  # not hidden_size / num_attention_heads
FORMS: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("llama", HEAD),
    "llama-scaled": ("llama", {"rope_parameters": {"rope_type": "linear", "rope_theta": 555.0, "factor": 3.0}}),
    "llama-tied": ("llama", {"tie_word_embeddings": True}),
    "mistral": ("mistral", {**HEAD, "sliding_window": None}),
    "mistral-window": ("mistral", {"sliding_window": 5}),
    "olmo2": ("olmo2", {}),
    "olmo2-bias": ("olmo2", {"attention_bias": True}),
    "qwen2": ("qwen2", {}),
    "qwen2-window": ("qwen2", {"use_sliding_window": True, "sliding_window": 5, "max_window_layers": 1}),
    "qwen3": ("qwen3", HEAD),
    "qwen3-bias-tied": ("qwen3", {**HEAD, "attention_bias": True, "tie_word_embeddings": True}),
    "qwen3-window": ("qwen3", {**HEAD, "use_sliding_window": True, "sliding_window": 5, "max_window_layers": 0}),
    # The window begins behind the last layer, so that none has it; Qwen3-MoE would put it into all.
    "qwen3-late-window": ("qwen3", {**HEAD, "use_sliding_window": True, "sliding_window": 5}),
}

pytestmark = pytest.mark.filterwarnings("ignore:Initializing zero-element tensors")


def config_of(family: str, **changes: Any) -> Any:
    return CONFIG_MAPPING[family](**{**SIZES, **changes})


def dense(family: str, **changes: Any) -> PreTrainedModel:
    """A random dense model whose norms and biases are random as well."""
    return scrambled(AutoModelForCausalLM.from_config(config_of(family, **changes))).eval()


def scrambled(model: Any) -> Any:
    draws = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=draws))
    return model


def own(gate: str, experts: int, top_k: int, **changes: Any) -> PreTrainedModel:
    """The platform's MoE with the trunk of the dense Qwen3 of this file."""
    sizes = {**SIZES, **HEAD, "moe_intermediate_size": 48, "tie_word_embeddings": False, **changes}
    config = PhasegateMoeConfig(**sizes, num_experts=experts, num_experts_per_tok=top_k, router_options={"gate": gate})
    model: PreTrainedModel = AutoModelForCausalLM.from_config(config)
    return model.eval()


def seed(shared: list[int | None] | None, sparse: list[int], gate: str = "straight-through") -> PreTrainedModel:
    """A dense seed of four layers."""
    changes: dict[str, Any] = {"num_hidden_layers": 4, "mlp_only_layers": [0, 1, 2, 3]}
    model = own(gate, 4, 1, **changes, shared_ffn=shared, sparse_layers=sparse)
    return scrambled(model)


def compare(one: Any, other: Any, ids: torch.Tensor) -> tuple[float, bool]:
    """The largest difference of logits, and whether all predictions are the same."""
    with torch.no_grad():
        first, second = one(ids).logits, other(ids).logits
    return float((first - second).abs().max()), torch.equal(first.argmax(-1), second.argmax(-1))


@pytest.mark.parametrize(("experts", "top_k"), [(4, 1), (4, 2), (9, 1), (9, 2)])
@pytest.mark.parametrize("form", FORMS)
def test_the_moe_computes_what_the_dense_model_computes(form: str, experts: int, top_k: int, ids: torch.Tensor) -> None:
    family, changes = FORMS[form]
    model = dense(family, **changes)
    moe = upcycle(model, experts, top_k, seed=0)
    assert moe.config.model_type == SIBLINGS[family]
    apart, same = compare(model, moe, ids)
    assert apart < 5e-5
    assert same


@pytest.mark.parametrize("implementation", ["batched_mm", "eager", "grouped_mm"])
def test_it_does_so_however_the_experts_run(implementation: str, ids: torch.Tensor) -> None:
    model = dense("qwen3", **HEAD)
    moe = upcycle(model, 4, 2, seed=0)
    moe.set_experts_implementation(implementation)
    apart, same = compare(model, moe, ids)
    assert apart < 5e-5
    assert same


def test_weights_of_chosen_experts_that_are_not_normalised_would_not_do(ids: torch.Tensor) -> None:
    # What the library's default (norm_topk_prob false) computes: each clone is scaled by its probability.
    model = dense("qwen3", **HEAD)
    config = sibling_config(model.config, 4, 2)
    config.norm_topk_prob = False
    moe = clone(model, AutoModelForCausalLM.from_config(config)).eval()
    assert compare(model, moe, ids)[0] > 0.1


class Fused(nn.Module):
    """A dense FFN whose gate and up are one matrix product, as in the experts."""

    def __init__(self, ffn: Any) -> None:
        super().__init__()
        self.ffn = ffn
        self.gate_up = torch.cat([ffn.gate_proj.weight, ffn.up_proj.weight])

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        gate, up = nn.functional.linear(hidden, self.gate_up).chunk(2, dim=-1)
        out: torch.Tensor = self.ffn.down_proj(self.ffn.act_fn(gate) * up)
        return out


@pytest.mark.parametrize("implementation", ["eager", "grouped_mm"])
def test_one_expert_is_bit_equal_to_a_dense_ffn_with_gate_and_up_in_one_product(
    implementation: str, ids: torch.Tensor
) -> None:
    model = dense("qwen3", **HEAD)
    moe = upcycle(model, 1, 1, seed=0)
    moe.set_experts_implementation(implementation)
    for layer in model.model.layers:
        layer.mlp = Fused(layer.mlp)
    with torch.no_grad():
        assert torch.equal(model(ids).logits, moe(ids).logits)


def test_all_experts_are_the_ffn_bit_for_bit() -> None:
    model = dense("llama")
    moe = upcycle(model, 3, 2, seed=0)
    for layer, routed in zip(model.model.layers, moe.model.layers, strict=True):
        ffn = layer.mlp
        for expert in range(3):
            expected = torch.cat([ffn.gate_proj.weight, ffn.up_proj.weight])
            assert torch.equal(routed.mlp.experts.gate_up_proj[expert], expected)
            assert torch.equal(routed.mlp.experts.down_proj[expert], ffn.down_proj.weight)


@pytest.mark.parametrize("form", FORMS)
def test_the_sibling_has_every_field_of_the_dense_model(form: str) -> None:
    family, changes = FORMS[form]
    config = config_of(family, **changes)
    fields, found = config.to_dict(), sibling_config(config, 6, 2).to_dict()
    names = set(SIZES) | set(changes) | {"attention_dropout", "hidden_act", "tie_word_embeddings"}
    # Qwen2-MoE says 0, and Qwen3-MoE knows no window in some layers only.
    names -= {"max_window_layers", "sliding_window", "use_sliding_window"}
    assert {name: found[name] for name in names} == {name: fields[name] for name in names}
    assert found["num_experts" if "num_experts" in found else "num_local_experts"] == 6
    assert found["num_experts_per_tok"] == 2
    assert found.get("norm_topk_prob", True) is True
    assert found["router_aux_loss_coef"] == 0.0


def test_the_window_of_attention_is_taken_over() -> None:
    windows = {form: sibling_config(config_of(FORMS[form][0], **FORMS[form][1]), 4, 1) for form in FORMS}
    assert windows["mistral-window"].sliding_window == 5
    assert windows["mistral"].sliding_window is None
    assert windows["qwen3-window"].sliding_window == 5
    assert windows["qwen3-late-window"].sliding_window is None
    assert windows["qwen2-window"].layer_types == ["full_attention", "sliding_attention"]


@pytest.mark.parametrize(
    ("config", "words"),
    [
        (GPT2Config(n_layer=1, n_embd=8, n_head=2), "family gpt2 has no MoE sibling .* llama, mistral"),
        (MixtralConfig(**SIZES), "family mixtral has experts already.*; upcycle a model of a family that works"),
        (PhasegateMoeConfig(**SIZES), "dense seed of its own"),
        (config_of("llama", hidden_act="gelu"), "llama has hidden_act 'gelu'"),
        (config_of("llama", mlp_bias=True), "llama has mlp_bias, for which mixtral has no place"),
        (config_of("llama", attention_bias=True), "llama has attention_bias, for which mixtral has no place"),
        (
            config_of("qwen3", use_sliding_window=True, sliding_window=5, max_window_layers=1),
            "sliding window in some layers only",
        ),
    ],
)
def test_what_no_sibling_can_take_over_is_refused_in_one_sentence(config: Any, words: str) -> None:
    with pytest.raises(ConfigError, match=words) as error:
        sibling_config(config, 4, 1)
    assert str(error.value).count(". ") == 0


@pytest.mark.parametrize(("experts", "top_k"), [(4, 0), (4, 5), (0, 0)])
def test_more_experts_per_token_than_experts_are_refused(experts: int, top_k: int) -> None:
    with pytest.raises(ConfigError, match=f"pass {top_k} of {experts} experts"):
        sibling_config(config_of("llama"), experts, top_k)


def test_a_weight_without_a_place_in_the_moe_is_named() -> None:
    model = dense("llama", mlp_bias=True)
    target = AutoModelForCausalLM.from_config(sibling_config(config_of("llama"), 2, 1))
    with pytest.raises(ConfigError, match=r"no place for the weight model\.layers\.0\.mlp\.down_proj\.bias .*6 such"):
        clone(model, target)


def test_a_weight_without_a_source_is_named_and_nothing_is_copied() -> None:
    model = dense("llama")
    target = AutoModelForCausalLM.from_config(sibling_config(config_of("llama", intermediate_size=50), 2, 1))
    before = {name: weight.clone() for name, weight in target.state_dict().items()}
    with pytest.raises(ConfigError, match=r"experts\.gate_up_proj \(2, 100, 32\) .* \(48, 32\)"):
        clone(model, target)
    assert all(torch.equal(weight, before[name]) for name, weight in target.state_dict().items())


def test_a_head_that_is_tied_on_one_side_only_is_refused() -> None:
    model = dense("llama")
    target = AutoModelForCausalLM.from_config(sibling_config(config_of("llama", tie_word_embeddings=True), 2, 1))
    with pytest.raises(ConfigError, match="tie_word_embeddings is False in the dense model and True"):
        clone(model, target)


def test_a_clone_that_computes_something_else_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    model = dense("llama")
    for layer in model.model.layers:
        layer.self_attn.scaling *= 2  # what no configuration tells
    with pytest.raises(ConfigError, match="the clone computes something else"):
        upcycle(model, 2, 1, seed=0)


def test_equal_seeds_give_equal_routers_and_the_global_generator_stays() -> None:
    model, state = dense("llama"), torch.get_rng_state()
    gates = [upcycle(model, 4, 2, seed=number).model.layers[1].mlp.gate.weight for number in (1, 1, 2)]
    assert torch.equal(gates[0], gates[1])
    assert not torch.equal(gates[0], gates[2])
    assert torch.equal(state, torch.get_rng_state())


def test_a_model_in_half_precision_becomes_one_in_single_precision() -> None:
    moe = upcycle(dense("llama").to(torch.bfloat16), 4, 2, seed=0)
    assert {parameter.dtype for parameter in moe.parameters()} == {torch.float32}


def test_generation_settings_mode_and_companions_go_along(make_guard: Callable[..., Guard]) -> None:
    model = dense("llama").train()
    model.generation_config.eos_token_id = [2, 17]
    attach(model, "anchor", make_guard(model))
    moe = upcycle(model, 4, 2, seed=0)
    assert moe.generation_config.eos_token_id == [2, 17]
    assert moe.training and model.training
    assert set(companions_of(moe)) == {"anchor"}


@pytest.mark.parametrize("family", SIBLINGS)
def test_the_moe_is_read_again_as_it_was_saved(family: str, ids: torch.Tensor, tmp_path: Path) -> None:
    moe = upcycle(dense(family), 4, 2, seed=0)
    moe.save_pretrained(tmp_path)
    assert difference(moe, read_model(tmp_path), ids) == 0.0


@pytest.mark.parametrize(("gate", "top_k"), [("straight-through", 1), ("normalized", 1), ("normalized", 2)])
def test_a_dense_qwen3_becomes_the_platform_s_own_model(gate: str, top_k: int, ids: torch.Tensor) -> None:
    model = dense("qwen3", **HEAD)
    apart, same = compare(model, clone(model, own(gate, 4, top_k)), ids)
    assert apart < 5e-5
    assert same


# Layers 0 to 2 use the FFN of layer 3; or in turn those of 1 and 3; or every layer has its own.
SEEDS: Mapping[str, tuple[list[int | None] | None, list[int]]] = {
    "block": ([3, 3, 3, None], [0, 1, 2]),
    "modulo": ([1, None, 3, None], [0, 2]),
    "own": (None, [0, 1, 2, 3]),
    "partly": ([None, 0, 3, None], [2]),  # layer 1 stays dense and shares
}


@pytest.mark.parametrize("experts", [4, 9])
@pytest.mark.parametrize("form", SEEDS)
def test_a_seed_becomes_an_moe_that_computes_the_same(form: str, experts: int, ids: torch.Tensor) -> None:
    shared, sparse = SEEDS[form]
    model = seed(shared, sparse).eval()
    moe = upcycle_own(model, experts, seed=0)
    assert isinstance(moe, PhasegateMoeForCausalLM)
    assert [layer for _, layer, _ in routers_of(moe)] == sparse
    assert moe.config.num_experts == experts
    assert (moe.config.shared_ffn, moe.config.sparse_layers) == (None, None)
    apart, same = compare(model, moe, ids)
    assert apart < 5e-5
    assert same


def test_every_layer_of_a_seed_gets_the_ffn_that_it_used() -> None:
    model = seed([1, None, 3, None], [0, 2])
    moe = upcycle_own(model, 4, seed=0)
    for layer, source in ((0, 1), (2, 3)):
        expected = model.model.layers[source].mlp.down_proj.weight
        assert all(torch.equal(one, expected) for one in moe.model.layers[layer].mlp.experts.down_proj)


def test_a_seed_stays_as_it_was() -> None:
    model = seed([3, 3, 3, None], [0, 1, 2])
    upcycle_own(model, 4, seed=0)
    assert model.config.sparse_layers == [0, 1, 2]
    assert routers_of(model) == []


def test_a_gate_that_scales_clones_down_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"with 0\.\d\d in all instead of 1.* choose the gate straight-through"):
        upcycle_own(seed([3, 3, 3, None], [0, 1, 2], gate="softmax"), 4, seed=0)


def test_a_straight_through_gate_with_two_experts_per_token_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"with 2\.00 in all instead of 1"):
        upcycle_own(seed([3, 3, 3, None], [0, 1, 2]), 4, seed=0, top_k=2)


def test_a_model_that_is_no_seed_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"no dense seed .* model\.start: dense"):
        upcycle_own(own("straight-through", 4, 1), 8, seed=0)


@pytest.mark.parametrize("family", SIBLINGS)
def test_a_stock_router_learns_from_the_task_with_two_experts_per_token_and_not_with_one(family: str) -> None:
    model = dense(family)
    assert not learns(upcycle(model, 4, 1, seed=0))
    assert learns(upcycle(model, 4, 2, seed=0))


@pytest.mark.parametrize(
    ("gate", "top_k", "expected"), [("straight-through", 1, True), ("normalized", 1, False), ("normalized", 2, True)]
)
def test_whether_an_own_router_learns_is_up_to_its_gate(gate: str, top_k: int, expected: bool) -> None:
    moe = upcycle_own(seed(None, [1, 2], gate), 4, seed=0, top_k=top_k)
    moe.requires_grad_(False)  # what a step freezes is its own choice
    assert learns(moe) is expected
    assert all(parameter.grad is None for parameter in moe.parameters())


def test_a_model_without_routers_has_none_that_learn() -> None:
    assert not learns(dense("qwen3"))
