"""The warm start of a new router."""

from __future__ import annotations

import dataclasses
import gc
import math
import weakref
from collections.abc import Callable
from typing import Any

import pytest
import torch
from phasegate.core.model.router import RouterBase, RouterContext
from phasegate.core.training.terms import LossContext, LossSetup
from phasegate.plugins.losses.imitation import Imitation
from phasegate.plugins.losses.options import ImitationConfig
from phasegate.plugins.routers.linear import LinearRouter
from phasegate.plugins.routers.options import LinearRouterConfig, TorusRouterConfig
from phasegate.plugins.routers.torus import TorusRouter
from phasegate.registry.errors import ConfigError
from torch import nn


def routed_by(kind: str, *, layers: int = 2, experts: int = 4, hidden: int = 4, seed: int = 0) -> Any:
    """Layers that are nothing but routers."""
    model = nn.Module()
    model.layers = nn.ModuleList()
    first: RouterBase | None = None
    torch.manual_seed(seed)
    for layer in range(layers):
        shape = RouterContext(hidden_size=hidden, num_experts=experts, top_k=1, layer=layer, first=first)
        block = nn.Module()
        block.gate = (
            LinearRouter(LinearRouterConfig(), context=shape)
            if kind == "linear"
            else TorusRouter(TorusRouterConfig(), context=shape)
        )
        block.gate.reset(0.5)
        first = first or block.gate
        model.layers.append(block)
    return model


def setup_of(model: nn.Module, parent: Any) -> LossSetup:
    return LossSetup(
        model=model,
        domains=(),
        experts=4,
        top_k=1,
        layers=2,
        world_size=1,
        accumulate=1,
        parent=None if parent is None else lambda: parent,
    )


def states(count: int, seed: int = 1) -> torch.Tensor:
    return torch.randn(count, 4, generator=torch.Generator().manual_seed(seed))


def test_its_value_is_the_surprise_at_what_the_old_router_chooses(routed: Callable[..., LossContext]) -> None:
    new, old = routed_by("linear", layers=1), routed_by("linear", layers=1)
    with torch.no_grad():
        new.layers[0].gate.weight.copy_(torch.eye(4) * math.log(3.0))
        old.layers[0].gate.weight.copy_(torch.eye(4).flip(0))
    loss = Imitation(ImitationConfig(), setup_of(new, old))
    # p = (3, 1, 1, 1) / 6 for the first token, and the old router sends it to expert 3.
    hidden = torch.tensor([[1.0, 0.0, 0.0, 0.0]])
    assert loss(routed(new, hidden)).item() == pytest.approx(math.log(6.0), rel=1e-5)
    assert loss.told[0].item() == 0.0


def test_a_copy_agrees_with_what_it_was_copied_from(routed: Callable[..., LossContext]) -> None:
    new, old = routed_by("linear", seed=3), routed_by("linear", seed=3)
    loss = Imitation(ImitationConfig(), setup_of(new, old))
    loss(routed(new, states(50)))
    assert loss.told[0].item() == 1.0


def test_agreement_is_a_mean_over_valid_tokens_and_layers(routed: Callable[..., LossContext]) -> None:
    new, old = routed_by("linear"), routed_by("linear")
    with torch.no_grad():
        for block, sign in zip(new.layers, (1.0, -1.0), strict=True):
            block.gate.weight.copy_(sign * torch.eye(4))
        for block in old.layers:
            block.gate.weight.copy_(torch.eye(4))
    loss = Imitation(ImitationConfig(), setup_of(new, old))
    loss(routed(new, torch.eye(4)))
    assert loss.told[0].item() == 0.5  # the first layer agrees, the second never does


@pytest.mark.parametrize(("kind", "other"), [("torus", "linear"), ("linear", "torus"), ("torus", "torus")])
def test_any_router_learns_the_choices_of_any_other(routed: Callable[..., LossContext], kind: str, other: str) -> None:
    new, old = routed_by(kind, seed=1), routed_by(other, seed=2)
    loss = Imitation(ImitationConfig(), setup_of(new, old))
    optimizer = torch.optim.Adam(new.parameters(), lr=0.03)
    hidden = states(256)
    agreements = []
    for _ in range(150):
        optimizer.zero_grad()
        loss(routed(new, hidden)).backward()
        optimizer.step()
        agreements.append(loss.told[0].item())
    # Three coordinates cannot say all that a matrix can, nor a matrix what a torus can.
    assert agreements[0] < 0.4
    assert agreements[-1] > 0.55


def test_the_old_router_stays_what_it_was(routed: Callable[..., LossContext]) -> None:
    new, old = routed_by("torus"), routed_by("linear")
    before = [block.gate.weight.clone() for block in old.layers]
    Imitation(ImitationConfig(), setup_of(new, old))(routed(new, states(8))).backward()
    for block, weight in zip(old.layers, before, strict=True):
        assert torch.equal(block.gate.weight, weight)
        assert block.gate.weight.grad is None
        assert block.gate.weight.requires_grad  # the parent itself was not touched


def test_nothing_of_the_parent_is_kept_but_its_routers(routed: Callable[..., LossContext]) -> None:
    new, old = routed_by("torus"), routed_by("linear")
    old.embedding = nn.Embedding(100, 4)
    gone = weakref.ref(old.embedding)
    loss = Imitation(ImitationConfig(), setup_of(new, old))
    del old
    gc.collect()
    assert gone() is None
    assert loss(routed(new, states(4))).isfinite()


def test_padding_counts_for_nothing(routed: Callable[..., LossContext]) -> None:
    new, old = routed_by("torus"), routed_by("linear")
    loss = Imitation(ImitationConfig(), setup_of(new, old))
    hidden = states(6)
    plain, told = loss(routed(new, hidden)).item(), loss.told[0].item()
    padded = routed(new, torch.cat([hidden, torch.zeros(2, 4)]), [True] * 6 + [False] * 2)
    junk = torch.cat([hidden, torch.full((2, 4), float("nan"))])
    records = [dataclasses.replace(record, hidden=junk) for record in padded.records]
    assert loss(dataclasses.replace(padded, records=records)).item() == pytest.approx(plain, rel=1e-5)
    assert loss.told[0].item() == pytest.approx(told)


def test_it_reads_hidden_states_of_another_precision(routed: Callable[..., LossContext]) -> None:
    new, old = routed_by("torus"), routed_by("linear")
    ctx = routed(new, states(4))
    records = [
        dataclasses.replace(record, hidden=record.hidden.bfloat16())  # type: ignore[union-attr]
        for record in ctx.records
    ]
    assert Imitation(ImitationConfig(), setup_of(new, old))(dataclasses.replace(ctx, records=records)).isfinite()


def test_a_phase_without_a_parent_is_refused() -> None:
    with pytest.raises(ConfigError, match="this phase starts from none"):
        Imitation(ImitationConfig(), setup_of(routed_by("torus"), None))


@pytest.mark.parametrize("changes", [{"layers": 1}, {"experts": 8}, {"layers": 0}])
def test_a_parent_with_other_layers_is_refused(changes: dict[str, int]) -> None:
    with pytest.raises(ConfigError, match="routers in the same layers over the same number of experts"):
        Imitation(ImitationConfig(), setup_of(routed_by("torus"), routed_by("linear", **changes)))
