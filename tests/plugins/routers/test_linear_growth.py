from __future__ import annotations

import pytest
import torch
from phasegate.core.model.router import RouterContext
from phasegate.plugins.routers.linear import LinearRouter
from phasegate.plugins.routers.options import LinearRouterConfig, TorusRouterConfig
from phasegate.plugins.routers.torus import TorusRouter
from phasegate.registry.errors import ConfigError


def linear(experts: int, width: int = 6) -> LinearRouter:
    context = RouterContext(hidden_size=width, num_experts=experts, top_k=1, layer=0)
    router = LinearRouter(LinearRouterConfig(), context=context)
    router.reset(1.0)
    return router


@pytest.fixture
def hidden() -> torch.Tensor:
    return torch.randn(200, 6, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("copies", [2, 4])
def test_copies_share_the_probability_of_their_expert_evenly(hidden: torch.Tensor, copies: int) -> None:
    small, large = linear(5), linear(5 * copies)
    large.extend_from(small, copies)
    before, after = (router(hidden)[0].softmax(-1) for router in (small, large))
    torch.testing.assert_close(after, before.repeat_interleave(copies, dim=-1) / copies)


@pytest.mark.parametrize("bias", [0.0, 0.3])
def test_a_token_goes_to_a_copy_of_the_expert_it_went_to(hidden: torch.Tensor, bias: float) -> None:
    small, large = linear(5), linear(10)
    small.selection_bias.copy_(torch.tensor([-bias, 0.0, bias / 2, 0.0, bias]))
    large.extend_from(small, 2)
    assert torch.equal(large(hidden)[2] // 2, small(hidden)[2])


def test_growing_twice_is_growing_by_four() -> None:
    small, middle, large, at_once = linear(3), linear(6), linear(12), linear(12)
    small.selection_bias.copy_(torch.tensor([0.5, -0.25, 1.0]))
    middle.extend_from(small, 2)
    large.extend_from(middle, 2)
    at_once.extend_from(small, 4)
    assert torch.equal(large.weight, at_once.weight)
    assert large.selection_bias.tolist() == at_once.selection_bias.tolist() == [0.125] * 4 + [-0.0625] * 4 + [0.25] * 4


def test_a_router_of_other_sizes_cannot_be_continued() -> None:
    with pytest.raises(ConfigError, match="10 experts of width 6 cannot continue the LinearRouter for 4 experts"):
        linear(10).extend_from(linear(4), 2)
    with pytest.raises(ConfigError, match="of width 8 with 2 copies"):
        linear(10).extend_from(linear(5, width=8), 2)


def test_a_router_of_another_kind_cannot_be_continued() -> None:
    context = RouterContext(hidden_size=6, num_experts=5, top_k=1, layer=0)
    with pytest.raises(ConfigError, match="cannot continue the TorusRouter"):
        linear(10).extend_from(TorusRouter(TorusRouterConfig(), context=context), 2)
