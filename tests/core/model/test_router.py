from __future__ import annotations

import math

import pytest
import torch
from phasegate.core.model.router import RouterBase, RouterContext
from phasegate.registry.registry import Registry

# Three experts; the second token prefers the last one. softmax([0, ln 2, ln 5]) = [1, 2, 5] / 8.
LOGITS = torch.tensor([[math.log(5.0), math.log(2.0), 0.0], [0.0, math.log(2.0), math.log(5.0)]])


def router(registry: Registry, gate: str, top_k: int = 2) -> RouterBase:
    """A linear router over 3 hidden units with the identity as its weight: hidden states are logits."""
    context = RouterContext(hidden_size=3, num_experts=3, top_k=top_k, layer=0)
    built = registry.build("router", "linear", {"gate": gate}, context=context)
    assert isinstance(built, RouterBase)
    with torch.no_grad():
        built.weight.copy_(torch.eye(3))
    return built


def test_the_softmax_gate_weighs_by_probability(registry: Registry) -> None:
    logits, weights, index = router(registry, "softmax")(LOGITS)
    torch.testing.assert_close(logits, LOGITS)
    assert index.tolist() == [[0, 1], [2, 1]]
    torch.testing.assert_close(weights, torch.tensor([[5 / 8, 2 / 8], [5 / 8, 2 / 8]]))


def test_the_normalized_gate_sums_to_one_over_the_chosen(registry: Registry) -> None:
    _, weights, _ = router(registry, "normalized")(LOGITS)
    torch.testing.assert_close(weights, torch.tensor([[5 / 7, 2 / 7], [5 / 7, 2 / 7]]))


def test_the_straight_through_gate_has_value_one_and_the_gradient_of_log_p(registry: Registry) -> None:
    hidden = LOGITS.clone().requires_grad_()
    _, weights, _ = router(registry, "straight-through", top_k=1)(hidden)
    assert weights.tolist() == [[1.0], [1.0]]
    weights.sum().backward()
    # d ln p_0 / d logits = onehot - p
    torch.testing.assert_close(hidden.grad[0], torch.tensor([1 - 5 / 8, -2 / 8, -1 / 8]))


@pytest.mark.parametrize("gate", ["normalized", "softmax", "straight-through"])
def test_an_expert_of_probability_zero_gets_no_nan(registry: Registry, gate: str) -> None:
    module = router(registry, gate, top_k=1)
    module.selection_bias[2] = 9.0
    hidden = torch.tensor([[300.0, 0.0, -300.0]], requires_grad=True)
    _, weights, index = module(hidden)
    weights.sum().backward()
    assert index.tolist() == [[2]]
    assert torch.isfinite(weights).all()
    assert torch.isfinite(hidden.grad).all()


def test_the_selection_bias_chooses_but_does_not_weigh(registry: Registry) -> None:
    module = router(registry, "softmax", top_k=1)
    module.selection_bias.copy_(torch.tensor([0.0, 0.5, 0.0]))  # 2/8 + 0.5 > 5/8
    logits, weights, index = module(LOGITS)
    torch.testing.assert_close(logits, LOGITS)
    assert index.tolist() == [[1], [1]]
    torch.testing.assert_close(weights, torch.full((2, 1), 2 / 8))


def test_leading_dimensions_are_flattened(registry: Registry) -> None:
    logits, weights, index = router(registry, "softmax")(LOGITS.expand(4, 2, 3))
    assert (logits.shape, weights.shape, index.shape) == ((8, 3), (8, 2), (8, 2))


def test_probabilities_are_fp32_under_bf16_hidden_states(registry: Registry) -> None:
    module = router(registry, "softmax", top_k=1).to(torch.bfloat16)
    # 256 and 255 are bf16 numbers; a bf16 softmax of their difference would round 1/(1+e^-1) = 0.731.
    _, weights, _ = module(torch.tensor([[256.0, 255.0, 0.0]], dtype=torch.bfloat16))
    assert weights.dtype == torch.bfloat16
    assert weights.item() == torch.tensor(1 / (1 + math.exp(-1))).bfloat16().item()


def test_casting_a_router_leaves_its_bias_in_fp32(registry: Registry) -> None:
    module = router(registry, "softmax")
    module.selection_bias.fill_(1.0 + 1e-3)
    module.to(torch.bfloat16)
    assert module.weight.dtype == torch.bfloat16
    assert module.selection_bias.tolist() == torch.full((3,), 1.0 + 1e-3).tolist()


def router_gradient(registry: Registry, gate: str) -> float:
    module = router(registry, gate, top_k=1)
    _, weights, _ = module(LOGITS)
    (weights * torch.tensor([[2.0], [3.0]])).sum().backward()
    return float(module.weight.grad.abs().max())


def test_top_1_softmax_gives_the_router_a_gradient(registry: Registry) -> None:
    assert router_gradient(registry, "softmax") > 0.1


def test_top_1_normalized_starves_the_router(registry: Registry) -> None:
    assert router_gradient(registry, "normalized") < 1e-6


def test_a_linear_router_says_which_stock_router_it_equals(registry: Registry) -> None:
    forms = {
        (gate, k): router(registry, gate, k).stock_normalisation()
        for gate in ("normalized", "softmax", "straight-through")
        for k in (1, 2)
    }
    assert forms == {
        ("normalized", 1): True,
        ("normalized", 2): True,
        ("softmax", 1): False,
        ("softmax", 2): False,
        ("straight-through", 1): True,
        ("straight-through", 2): None,
    }
