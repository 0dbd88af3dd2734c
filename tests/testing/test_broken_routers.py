"""Routers with one thing wrong each, caught by the check that is named beside it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from phasegate.core.model.router import RouterBase, RouterContext
from phasegate.registry.components import RouterSpec
from torch import nn
from transformers import initialization as init


class Plain(RouterBase):
    """The linear router, without options."""

    def __init__(self, *, context: RouterContext) -> None:
        super().__init__(context)
        self.weight = nn.Parameter(torch.empty(self.num_experts, self.hidden_size))

    def scores(self, hidden: torch.Tensor) -> torch.Tensor:
        return nn.functional.linear(hidden, self.weight)

    def init_weights(self, std: float) -> None:
        init.normal_(self.weight, std=std)


class OneWeight(Plain):
    def forward(self, hidden: torch.Tensor) -> Any:
        logits, weights, index = super().forward(hidden)
        return logits, weights[:, :1], index


class SameExpert(Plain):
    def forward(self, hidden: torch.Tensor) -> Any:
        logits, weights, index = super().forward(hidden)
        return logits, weights, index[:, :1].expand_as(index)


class Doubled(Plain):
    def gate(self, probabilities: torch.Tensor) -> torch.Tensor:
        return 2.0 * probabilities / probabilities.sum(-1, keepdim=True)


class OverTheBatch(Plain):
    def scores(self, hidden: torch.Tensor) -> torch.Tensor:
        return super().scores(hidden - hidden.mean(0))


class ByPlace(Plain):
    def scores(self, hidden: torch.Tensor) -> torch.Tensor:
        return super().scores(hidden) + torch.arange(len(hidden))[:, None] % 3 * torch.arange(self.num_experts)


class Detached(Plain):
    def gate(self, probabilities: torch.Tensor) -> torch.Tensor:
        return probabilities.detach() + 0.0 * probabilities


class Noisy(Plain):
    def scores(self, hidden: torch.Tensor) -> torch.Tensor:
        return super().scores(hidden) + 0.1 * torch.randn(len(hidden), self.num_experts)


class Unseeded(Plain):
    def init_weights(self, std: float) -> None:
        with torch.no_grad():
            self.weight.copy_(torch.randn(self.weight.shape, generator=torch.Generator().manual_seed(id(self) % 999)))


class BiasedLogits(Plain):
    def scores(self, hidden: torch.Tensor) -> torch.Tensor:
        return super().scores(hidden) + self.selection_bias.to(hidden.dtype)


class CastBias(Plain):
    def _apply(self, fn: Any, recurse: bool = True) -> Any:
        return nn.Module._apply(self, fn, recurse)


class OnTheHost(Plain):
    def scores(self, hidden: torch.Tensor) -> torch.Tensor:
        return super().scores(hidden) * (2.0 if float(hidden.sum()) > 0 else 1.0)


class Forgetful(Plain):
    def __init__(self, *, context: RouterContext) -> None:
        super().__init__(context=context)
        self.hidden_scale = torch.rand(())

    def scores(self, hidden: torch.Tensor) -> torch.Tensor:
        return self.hidden_scale * super().scores(hidden)


class Crowded(Plain):
    def capacity(self, tokens: int) -> int:
        return 1


class Lost(Plain):
    """Draws part of itself anew whenever it is built, so that a loaded model is another."""

    built = 0

    def __init__(self, *, context: RouterContext) -> None:
        super().__init__(context=context)
        Lost.built += 1
        self.factor = 1.0 + Lost.built

    def scores(self, hidden: torch.Tensor) -> torch.Tensor:
        return self.factor * super().scores(hidden)


BROKEN = {
    "shapes": (OneWeight, "(24, 1)"),
    "indices": (SameExpert, "one expert twice"),
    "weights": (Doubled, "add up to 2"),
    "padding": (OverTheBatch, "padding"),
    "permutation": (ByPlace, "order"),
    "gradient": (Detached, "No gradient reaches"),
    "determinism": (Noisy, "other numbers the second time"),
    "seed": (Unseeded, "seed gave"),
    "selection-bias": (BiasedLogits, ""),
    "bf16": (CastBias, "cast"),
    "compile": (OnTheHost, "cannot be captured"),
    "state-dict": (Forgetful, "otherwise"),
    "capacity": (Crowded, "capacity is 1"),
    "in-a-model": (Lost, "other logits"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_router_is_caught(name: str, failure: Callable[..., str], spec_of: Callable[..., Any]) -> None:
    target, said = BROKEN[name]
    assert said in failure(spec_of(RouterSpec, target), name)


def test_every_check_of_routers_catches_something(names: Callable[[str], set[str]]) -> None:
    assert set(BROKEN) == names("router")
