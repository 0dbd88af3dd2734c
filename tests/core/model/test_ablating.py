"""Models without some of their experts: what a token then passes, and that nothing stays behind."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from phasegate.core.model.ablating import without_experts
from phasegate.core.model.parameters import expert_parameters, routers_of
from phasegate.core.model.router import RouterBase, RouterContext
from phasegate.plugins.routers.linear import LinearRouter
from phasegate.plugins.routers.options import LinearRouterConfig
from phasegate.registry.errors import ConfigError
from torch import nn
from transformers import (
    MixtralConfig,
    MixtralForCausalLM,
    OlmoeConfig,
    OlmoeForCausalLM,
    PreTrainedModel,
    Qwen3MoeConfig,
    Qwen3MoeForCausalLM,
)

SIZES = {
    "vocab_size": 300,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "num_experts_per_tok": 2,
    "initializer_range": 0.2,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 1,
}


def mixtral(experts: int) -> PreTrainedModel:
    return MixtralForCausalLM(MixtralConfig(**SIZES, intermediate_size=16, num_local_experts=experts))


def olmoe(experts: int) -> PreTrainedModel:
    return OlmoeForCausalLM(OlmoeConfig(**SIZES, intermediate_size=16, num_experts=experts, norm_topk_prob=False))


def qwen3(experts: int, normalised: bool = True) -> PreTrainedModel:
    sizes = {"head_dim": 8, "intermediate_size": 16, "moe_intermediate_size": 16, "norm_topk_prob": normalised}
    return Qwen3MoeForCausalLM(Qwen3MoeConfig(**SIZES, **sizes, num_experts=experts))


FAMILIES: dict[str, Callable[[int], PreTrainedModel]] = {
    "mixtral": mixtral,
    "olmoe": olmoe,
    "qwen3": qwen3,
    "qwen3-plain": lambda experts: qwen3(experts, normalised=False),
}


def logits_of(model: nn.Module, ids: torch.Tensor) -> torch.Tensor:
    with torch.inference_mode():
        found: torch.Tensor = model.eval()(input_ids=ids, use_cache=False).logits
    return found.clone()


def without_row(model: nn.Module, smaller: nn.Module, expert: int) -> nn.Module:
    """The same weights in a model that never had the expert."""
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    stacked = {*expert_parameters(model)}
    routers = {name for name, _, _ in routers_of(model)}
    for name, tensor in state.items():
        if name in stacked or name.rpartition(".")[0] in routers:
            state[name] = torch.cat([tensor[:expert], tensor[expert + 1 :]])
    smaller.load_state_dict(state)
    return smaller


@pytest.mark.parametrize("family", FAMILIES)
def test_a_masked_stock_model_is_the_model_that_never_had_the_expert(family: str, ids: torch.Tensor) -> None:
    torch.manual_seed(0)
    model = FAMILIES[family](5)
    pruned = without_row(model, FAMILIES[family](4), 3)
    with without_experts(model, {0: [3], 1: [3]}):
        masked = logits_of(model, ids)
    assert torch.allclose(masked, logits_of(pruned, ids), atol=1e-5)
    assert not torch.allclose(masked, logits_of(model, ids), atol=1e-3)


@pytest.mark.parametrize("gate", ["softmax", "normalized", "straight-through"])
def test_the_own_model_masked_is_the_model_that_never_had_the_expert(
    build: Callable[..., PreTrainedModel], ids: torch.Tensor, gate: str
) -> None:
    model, smaller = build(gate=gate, initializer_range=0.5), build(gate=gate, num_experts=4)
    pruned = without_row(model, smaller, 2)
    with without_experts(model, {0: [2], 1: [2]}):
        masked = logits_of(model, ids)
    assert torch.allclose(masked, logits_of(pruned, ids), atol=1e-5)


def linear_router(gate: str, top_k: int, probabilities: list[float]) -> LinearRouter:
    """A router that gives every token these probabilities."""
    experts = len(probabilities)
    context = RouterContext(hidden_size=1, num_experts=experts, top_k=top_k, layer=0)
    router = LinearRouter(LinearRouterConfig(gate=gate), context=context)  # type: ignore[arg-type]
    with torch.no_grad():
        router.weight.copy_(torch.tensor(probabilities).log()[:, None])
    return router


class OneLayer(nn.Module):
    """A router where ``routers_of`` finds it."""

    def __init__(self, router: nn.Module) -> None:
        super().__init__()
        self.layers = nn.ModuleList([router])


def routed(router: nn.Module) -> tuple[list[float], list[int]]:
    _, weights, index = router(torch.ones(1, 1))
    return [round(weight, 4) for weight in weights[0].tolist()], [int(expert) for expert in index[0]]


def test_tokens_of_a_masked_expert_go_to_the_next_best_with_its_probability_among_the_rest() -> None:
    """0.3 of the 0.5 that are left without the first expert is 0.6."""
    router = linear_router("softmax", 1, [0.5, 0.3, 0.2])
    with without_experts(OneLayer(router), {0: [0]}):
        assert routed(router) == ([0.6], [1])
    assert routed(router) == ([0.5], [0])


def test_the_routers_own_gate_gives_the_weights_among_the_rest() -> None:
    """Normalised over the two that are chosen: 0.3 and 0.1 become 0.75 and 0.25."""
    router = linear_router("normalized", 2, [0.55, 0.3, 0.05, 0.1])
    with without_experts(OneLayer(router), {0: [0]}):
        assert routed(router) == ([0.75, 0.25], [1, 3])


def test_a_selection_bias_does_not_bring_a_masked_expert_back() -> None:
    router = linear_router("softmax", 2, [0.5, 0.3, 0.2])
    router.selection_bias[0] = 0.9
    bias = router.selection_bias
    with without_experts(OneLayer(router), {0: [0]}):
        assert routed(router)[1] == [1, 2]
    assert router.selection_bias is bias
    assert bias.tolist() == pytest.approx([0.9, 0.0, 0.0])


def test_a_zeroed_expert_is_still_chosen_but_counts_for_nothing() -> None:
    router = linear_router("softmax", 2, [0.5, 0.3, 0.2])
    with without_experts(OneLayer(router), {0: [0]}, "zero"):
        assert routed(router) == ([0.0, 0.3], [0, 1])


@pytest.mark.parametrize("family", FAMILIES)
def test_zeroing_an_expert_is_what_zero_weights_of_it_do(family: str, ids: torch.Tensor) -> None:
    torch.manual_seed(0)
    model = FAMILIES[family](4)
    with without_experts(model, {1: [0, 2]}, "zero"):
        silenced = logits_of(model, ids)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("layers.1.mlp.experts.down_proj"):
                parameter[[0, 2]] = 0.0
    assert torch.allclose(silenced, logits_of(model, ids), atol=1e-6)


@pytest.mark.parametrize("mode", ["mask", "zero"])
def test_nothing_stays_on_the_model(build: Callable[..., PreTrainedModel], ids: torch.Tensor, mode: Any) -> None:
    model = build()
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    attributes = [set(vars(module)) for module in model.modules()]
    hooks = [len(module._forward_hooks) for module in model.modules()]
    before = logits_of(model, ids)
    with without_experts(model, {0: [1, 2], 1: [0]}, mode):
        assert not torch.equal(logits_of(model, ids), before)
    assert torch.equal(logits_of(model, ids), before)
    assert all(torch.equal(state[name], tensor) for name, tensor in model.state_dict().items())
    assert [set(vars(module)) for module in model.modules()] == attributes
    assert [len(module._forward_hooks) for module in model.modules()] == hooks


def test_nothing_stays_after_an_error_inside(build: Callable[..., PreTrainedModel], ids: torch.Tensor) -> None:
    model = build()
    before = logits_of(model, ids)
    with pytest.raises(ZeroDivisionError), without_experts(model, {0: [1]}):
        raise ZeroDivisionError
    assert torch.equal(logits_of(model, ids), before)


def test_no_expert_taken_away_changes_no_bit(build: Callable[..., PreTrainedModel], ids: torch.Tensor) -> None:
    model = build()
    with without_experts(model, {0: []}):
        inside = logits_of(model, ids)
    assert torch.equal(inside, logits_of(model, ids))


def test_other_layers_keep_their_experts(build: Callable[..., PreTrainedModel], ids: torch.Tensor) -> None:
    model = build(num_experts_per_tok=1)
    seen: dict[int, set[int]] = {}
    for _, layer, module in routers_of(model):
        module.register_forward_hook(
            lambda _m, _i, out, layer=layer: seen.update({layer: set(out[2].ravel().tolist())})
        )
    logits_of(model, ids)
    busy = {layer: max(experts) for layer, experts in seen.items()}
    with without_experts(model, {1: [busy[1]]}):
        logits_of(model, ids)
    assert busy[1] not in seen[1] and busy[0] in seen[0]


class Stubborn(RouterBase):
    """A router that looks at neither ``scores`` nor the bias."""

    def scores(self, hidden: torch.Tensor) -> torch.Tensor:
        return hidden.new_zeros(len(hidden), self.num_experts)

    def init_weights(self, std: float) -> None:
        """It has none."""

    def forward(self, hidden: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        index = torch.zeros(len(hidden), 1, dtype=torch.long)
        return self.scores(hidden), torch.ones(len(hidden), 1), index


def test_a_router_that_cannot_be_masked_says_so_instead_of_being_measured_whole() -> None:
    model = OneLayer(Stubborn(RouterContext(hidden_size=1, num_experts=3, top_k=1, layer=0)))
    with (
        without_experts(model, {0: [0]}),
        pytest.raises(ConfigError, match="chose an expert whose logit was -inf"),
    ):
        model.layers[0](torch.ones(1, 1))
    with without_experts(model, {0: [1]}):
        model.layers[0](torch.ones(1, 1))


@pytest.mark.parametrize(
    ("experts", "mode", "text"),
    [
        ({7: [0]}, "mask", "layer 7 of OneLayer has no router; its routed layers are 0"),
        ({0: [3]}, "mask", "has experts 0 to 2, not 3"),
        ({0: [-1]}, "zero", "has experts 0 to 2, not -1"),
        ({0: [0, 1]}, "mask", "sends every token to 2 experts, but only 1 of 3 would be left"),
        ({0: [0]}, "drop", "by 'mask' or by 'zero', not by 'drop'"),
    ],
)
def test_what_cannot_be_taken_away_is_one_sentence(experts: dict[int, list[int]], mode: Any, text: str) -> None:
    model = OneLayer(linear_router("softmax", 2, [0.5, 0.3, 0.2]))
    with pytest.raises(ConfigError, match=text), without_experts(model, experts, mode):
        pass
