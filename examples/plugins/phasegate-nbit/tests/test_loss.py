"""Routing consistency: a divergence by hand, and what it refuses."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch
from phasegate import ConfigError
from phasegate.core.model.router import RouterBase, RouterContext
from phasegate.core.training.terms import LossContext, LossSetup, RouterRecord
from torch import nn

from phasegate_nbit.loss import RoutingConsistency
from phasegate_nbit.options import RoutingConsistencyConfig


class Linear(RouterBase):
    def __init__(self, experts: int = 2) -> None:
        super().__init__(RouterContext(hidden_size=1, num_experts=experts, top_k=1, layer=0))
        self.weight = nn.Parameter(torch.zeros(experts, 1))

    def scores(self, hidden: torch.Tensor) -> torch.Tensor:
        return nn.functional.linear(hidden, self.weight)

    def init_weights(self, std: float) -> None:
        """It stays as it is."""


class Fixed(Linear):
    def __init__(self) -> None:
        super().__init__()
        del self.weight
        self.register_buffer("weight", torch.zeros(2, 1))


def model_of(router: nn.Module) -> nn.Module:
    model, layer = nn.Module(), nn.Module()
    layer.gate = router
    model.layers = nn.ModuleList([layer])
    model.head = nn.Linear(1, 1)
    return model


def setup(model: nn.Module, parent: nn.Module | None) -> LossSetup:
    facts: dict[str, Any] = {"experts": 2, "top_k": 1, "layers": 1, "world_size": 1, "accumulate": 1}
    return LossSetup(model=model, domains=("general",), parent=None if parent is None else lambda: parent, **facts)


def context(model: Any, hidden: torch.Tensor, mask: list[bool]) -> LossContext:
    router = model.layers[0].gate
    logits, weights, index = router(hidden)
    record = RouterRecord(
        name="gate", layer=0, module=router, logits=logits, weights=weights, index=index, hidden=hidden
    )
    return LossContext(
        model=model,
        records=[record],
        mask=torch.tensor(mask),
        domain=torch.zeros(len(mask), dtype=torch.int64),
        domains=("general",),
        step=0,
        progress=0.0,
    )


@pytest.fixture
def pair() -> tuple[Any, Any]:
    """A model, and the one that it comes from, whose router says (1/4, 3/4) where the model's now says (1/2, 1/2)."""
    model = model_of(Linear())
    parent: Any = copy.deepcopy(model)
    parent.layers[0].gate.weight.data = torch.tensor([[0.0], [math.log(3)]])
    return model, parent


def test_it_is_the_divergence_from_what_the_old_router_says_of_the_same_states(pair: tuple[Any, Any]) -> None:
    model, parent = pair
    loss = RoutingConsistency(RoutingConsistencyConfig(), setup(model, parent))
    value = loss(context(model, torch.ones(3, 1), [True, True, False]))
    assert float(value.detach()) == pytest.approx(0.25 * math.log(0.5) + 0.75 * math.log(1.5))
    assert [float(told) for told in loss.told] == [0.0]  # the old one chooses 1; of two alike the first is chosen
    value.backward()  # type: ignore[no-untyped-call]
    # d KL / d logits = p - p_0 = (1/4, -1/4) for a state of 1
    assert model.layers[0].gate.weight.grad.flatten().tolist() == pytest.approx([0.25, -0.25])
    assert parent.layers[0].gate.weight.grad is None


def test_padding_does_not_reach_it(pair: tuple[Any, Any]) -> None:
    model, parent = pair
    loss = RoutingConsistency(RoutingConsistencyConfig(), setup(model, parent))
    hidden = torch.tensor([[1.0], [1.0], [math.inf]])
    value = loss(context(model, hidden, [True, True, False]))
    assert float(value.detach()) == pytest.approx(0.130812, abs=1e-6)


def test_it_is_nothing_while_the_router_is_as_it_was(pair: tuple[Any, Any]) -> None:
    _, parent = pair
    loss = RoutingConsistency(RoutingConsistencyConfig(temperature=2.0), setup(copy.deepcopy(parent), parent))
    value = loss(context(parent, torch.randn(8, 1), [True] * 8))
    assert float(value.detach()) == pytest.approx(0.0, abs=1e-7) and float(loss.told[0]) == 1.0


def test_what_it_cannot_act_on_is_refused_in_a_sentence(pair: tuple[Any, Any]) -> None:
    model, _ = pair
    config = RoutingConsistencyConfig()
    with pytest.raises(ConfigError, match="starts from none"):
        RoutingConsistency(config, setup(model, None))
    with pytest.raises(ConfigError, match="same number of experts"):
        RoutingConsistency(config, setup(model, model_of(Linear(experts=3))))
    with pytest.raises(ConfigError, match="learn nothing"):
        RoutingConsistency(config, setup(model_of(Fixed()), model))
