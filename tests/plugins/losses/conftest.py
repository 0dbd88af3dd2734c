"""Hand-made routing for the loss tests."""

from __future__ import annotations

import os

os.environ["HF_HUB_OFFLINE"] = "1"

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from phasegate.core.training.terms import LossContext, LossSetup, RouterRecord
from torch import nn

DOMAINS = ("general", "code")


class FakeRouter(nn.Module):
    """A router that is only its bias."""

    def __init__(self, experts: int) -> None:
        super().__init__()
        self.num_experts, self.top_k = experts, 1
        self.register_buffer("selection_bias", torch.zeros(experts))


@pytest.fixture
def router() -> FakeRouter:
    return FakeRouter(4)


@pytest.fixture
def setup(router: FakeRouter) -> LossSetup:
    model = nn.Module()
    model.router = router
    model.weight = nn.Parameter(torch.zeros(1))
    return LossSetup(model=model, domains=DOMAINS, experts=4, top_k=1, layers=1, world_size=1, accumulate=1)


@pytest.fixture
def context(router: FakeRouter) -> Callable[..., LossContext]:
    """A context of one layer from logits (N, E); the index is their top-k unless given."""

    def make(
        logits: torch.Tensor,
        domain: Sequence[int] | None = None,
        mask: Sequence[bool] | None = None,
        index: torch.Tensor | None = None,
        top_k: int = 1,
    ) -> LossContext:
        chosen = logits.detach().topk(top_k, -1).indices if index is None else index
        record = RouterRecord(
            name="router", layer=0, module=router, logits=logits, weights=torch.ones_like(chosen).float(), index=chosen
        )
        tokens = logits.shape[0]
        return LossContext(
            model=router,
            records=[record],
            mask=torch.tensor([True] * tokens if mask is None else list(mask)),
            domain=torch.tensor([0] * tokens if domain is None else list(domain)),
            domains=DOMAINS,
            step=0,
            progress=0.0,
        )

    return make


@pytest.fixture
def routed() -> Callable[..., LossContext]:
    """A context of a model whose layers have a router as ``gate``; all of them see the same hidden states (N, H)."""

    def make(
        model: Any,
        hidden: Sequence[Sequence[float]] | torch.Tensor,
        mask: Sequence[bool] | None = None,
        follows: Sequence[bool] | None = None,
    ) -> LossContext:
        states = torch.as_tensor(hidden, dtype=torch.float32)
        records = []
        for layer, block in enumerate(model.layers):
            logits, weights, index = block.gate(states)
            records.append(
                RouterRecord(
                    name=f"{layer}",
                    layer=layer,
                    module=block.gate,
                    logits=logits,
                    weights=weights,
                    index=index,
                    hidden=states,
                )
            )
        return LossContext(
            model=model,
            records=records,
            mask=torch.tensor([True] * len(states) if mask is None else list(mask)),
            domain=torch.zeros(len(states), dtype=torch.int64),
            domains=(),
            step=0,
            progress=0.0,
            follows=None if follows is None else torch.tensor(list(follows)),
        )

    return make
