"""The losses of the torus router: smooth, fold and expert-delta."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from phasegate.core.model.quantizer import Codes
from phasegate.core.model.router import RouterContext
from phasegate.core.training.routing import StepTokens, route, tokens_by_domain
from phasegate.core.training.terms import LossContext, LossSetup
from phasegate.plugins.losses import expert_delta
from phasegate.plugins.losses.expert_delta import ExpertDelta
from phasegate.plugins.losses.fold import Fold
from phasegate.plugins.losses.options import ExpertDeltaConfig, FoldConfig, SmoothConfig
from phasegate.plugins.losses.smooth import Smooth
from phasegate.plugins.routers.linear import LinearRouter
from phasegate.plugins.routers.options import LinearRouterConfig, TorusRouterConfig
from phasegate.plugins.routers.torus import TorusRouter
from phasegate.registry.errors import ConfigError
from torch import nn


class Experts(nn.Module):
    def __init__(self, experts: int) -> None:
        super().__init__()
        self.num_experts = experts
        self.gate_up_proj = nn.Parameter(torch.zeros(experts, 2, 1))
        self.down_proj = nn.Parameter(torch.zeros(experts, 1, 1))


def model_of(*grids: tuple[int, int, int]) -> Any:
    """Layers of experts on lattices, whose routers put a token where its hidden state (of width 3) says."""
    model = nn.Module()
    model.layers = nn.ModuleList()
    for layer, grid in enumerate(grids):
        experts = grid[0] * grid[1] * grid[2]
        context = RouterContext(hidden_size=3, num_experts=experts, top_k=1, layer=layer)
        block = nn.Module()
        block.gate = TorusRouter(TorusRouterConfig(grid=grid, jitter=0.0, shared=False), context=context)
        block.gate.reset(0.02)
        with torch.no_grad():
            block.gate.weight.copy_(torch.eye(3))
        block.experts = Experts(experts)
        model.layers.append(block)
    return model


def setup_of(model: nn.Module, experts: int = 4) -> LossSetup:
    return LossSetup(model=model, domains=(), experts=experts, top_k=1, layers=1, world_size=1, accumulate=1)


LINE = (4, 1, 1)  # experts at 1/8, 3/8, 5/8 and 7/8 of the first axis


# ---- smooth


def test_a_step_over_the_seam_is_as_short_as_it_is(routed: Callable[..., LossContext]) -> None:
    model = model_of(LINE)
    value = Smooth(SmoothConfig(), setup_of(model))(routed(model, [[0.99, 0.5, 0.5], [0.01, 0.5, 0.5]]))
    assert value.item() == pytest.approx(0.02 / 2, abs=1e-6)  # one step, two tokens


def test_only_tokens_of_one_document_follow_each_other(routed: Callable[..., LossContext]) -> None:
    model = model_of(LINE)
    hidden = [[0.1, 0.5, 0.5], [0.2, 0.5, 0.5], [0.6, 0.5, 0.5], [0.65, 0.5, 0.5]]
    value = Smooth(SmoothConfig(), setup_of(model))(routed(model, hidden, follows=[False, True, False, True]))
    assert value.item() == pytest.approx((0.1 + 0.05) / 4, abs=1e-6)


def test_smoothness_is_averaged_over_layers(routed: Callable[..., LossContext]) -> None:
    model = model_of(LINE, LINE)
    with torch.no_grad():
        model.layers[1].gate.weight.mul_(0.5)
    value = Smooth(SmoothConfig(), setup_of(model))(routed(model, [[0.1, 0.0, 0.0], [0.3, 0.0, 0.0]]))
    assert value.item() == pytest.approx((0.2 + 0.1) / 2 / 2, abs=1e-6)


def test_smoothness_tells_the_shares_of_steps_by_hops(routed: Callable[..., LossContext]) -> None:
    # Experts 0, 0, 1, 3, 3: same, one hop, two hops, same.
    model = model_of(LINE)
    loss = Smooth(SmoothConfig(), setup_of(model))
    loss(routed(model, [[x, 0.5, 0.5] for x in (0.12, 0.13, 0.38, 0.87, 0.88)]))
    assert [fact.item() for fact in loss.told] == [0.5, 0.25, 0.25, 0.0]


def test_hops_are_counted_from_where_experts_sit(routed: Callable[..., LossContext]) -> None:
    model = model_of(LINE)
    with torch.no_grad():
        model.layers[0].gate.sites.copy_(torch.tensor([0, 2, 1, 3]))  # experts 0 and 1 are now two hops apart
    loss = Smooth(SmoothConfig(), setup_of(model))
    loss(routed(model, [[0.12, 0.5, 0.5], [0.38, 0.5, 0.5]]))
    assert [fact.item() for fact in loss.told] == [0.0, 0.0, 1.0, 0.0]


def test_three_hops_and_more_are_far(routed: Callable[..., LossContext]) -> None:
    model = model_of((6, 1, 1))
    loss = Smooth(SmoothConfig(), setup_of(model, 6))
    loss(routed(model, [[1 / 12, 0.5, 0.5], [7 / 12, 0.5, 0.5]]))
    assert [fact.item() for fact in loss.told] == [0.0, 0.0, 0.0, 1.0]


@pytest.mark.parametrize("parts", [[9], [4, 5], [5, 4], [2, 2, 5]])
def test_shares_of_steps_do_not_depend_on_how_a_step_is_split_and_add_up_to_one(
    routed: Callable[..., LossContext], parts: list[int]
) -> None:
    # Rows of 2, 2 and 5 tokens. Their steps: same; one hop; same, one hop, two hops, same.
    hidden = [[x, 0.5, 0.5] for x in (0.1, 0.1, 0.1, 0.4, 0.1, 0.1, 0.4, 0.9, 0.9)]
    follows = [False, True, False, True, False, True, True, True, True]
    if parts == [5, 4]:  # the long row comes first
        hidden, follows = hidden[4:] + hidden[:4], follows[4:] + follows[:4]
    step, start, told = torch.tensor([9.0]), 0, torch.zeros(4)
    model = model_of(LINE)
    loss = Smooth(SmoothConfig(), setup_of(model))
    for length in parts:
        part = slice(start, start + length)
        ctx = routed(model, hidden[part], follows=follows[part])
        routing = route(ctx.records, None, ctx.domain, 0, StepTokens(own=torch.tensor([float(length)]), step=step))
        loss(dataclasses.replace(ctx, routing=routing))
        told += torch.stack(loss.told) * routing.fraction
        start += length
    # A text counts by its tokens: 2/9 of the first, 2/9 of the second, 5/9 of the third.
    wanted = torch.tensor([2 / 9 + 5 / 9 / 2, 2 / 9 + 5 / 9 / 4, 5 / 9 / 4, 0.0])
    torch.testing.assert_close(told, wanted)
    assert told.sum().item() == pytest.approx(1.0)


def test_padding_is_in_no_step(routed: Callable[..., LossContext]) -> None:
    model = model_of(LINE)
    loss = Smooth(SmoothConfig(), setup_of(model))
    hidden = [[x, 0.5, 0.5] for x in (0.1, 0.1, 0.4, 0.9)]
    loss(routed(model, hidden, mask=[True, True, True, False], follows=[False, True, True, True]))
    assert [fact.item() for fact in loss.told] == [0.5, 0.5, 0.0, 0.0]


def test_tokens_at_the_same_place_have_a_finite_gradient(routed: Callable[..., LossContext]) -> None:
    model = model_of(LINE)
    Smooth(SmoothConfig(), setup_of(model))(routed(model, [[0.3, 0.5, 0.5]] * 3)).backward()
    assert bool(model.layers[0].gate.weight.grad.isfinite().all())


def test_smoothing_moves_tokens_and_no_expert(routed: Callable[..., LossContext]) -> None:
    model = model_of(LINE)
    Smooth(SmoothConfig(), setup_of(model))(routed(model, [[0.1, 0.5, 0.5], [0.2, 0.5, 0.5]])).backward()
    # d|w (x_1 - x_2)|/dw = 0.1 on the first axis, over two tokens.
    assert model.layers[0].gate.weight.grad[0, 0].item() == pytest.approx(0.05, abs=1e-6)
    assert model.layers[0].gate.positions.grad is None


# ---- fold


def test_a_step_of_folding_moves_an_expert_towards_the_mean_of_its_tokens(routed: Callable[..., LossContext]) -> None:
    # The lattice has expert 0 at (1/8, 1/2, 1/2). T = 2: a step of 1/2 lr moves it by lr * mean of the differences.
    model = model_of(LINE)
    Fold(FoldConfig(), setup_of(model))(routed(model, [[0.05, 0.5, 0.5], [0.17, 0.6, 0.5]])).backward()
    router = model.layers[0].gate
    torch.optim.SGD([router.positions], lr=0.5).step()
    torch.testing.assert_close(router.positions[0].detach(), torch.tensor([0.11, 0.55, 0.5]))
    torch.testing.assert_close(router.positions[1:], router.home[1:])


def test_folding_goes_the_short_way_over_the_seam(routed: Callable[..., LossContext]) -> None:
    model = model_of(LINE)
    router = model.layers[0].gate
    with torch.no_grad():
        router.positions[0, 0] = 0.02
    Fold(FoldConfig(anchor=0.0), setup_of(model))(routed(model, [[0.98, 0.5, 0.5]])).backward()
    torch.optim.SGD([router.positions], lr=0.25).step()
    assert router.positions[0, 0].item() == pytest.approx(0.0, abs=1e-6)  # half of the way from 0.02 to 0.98
    router.after_step(0.5)
    assert bool(((router.positions >= 0) & (router.positions < 1)).all())


def test_folding_leaves_tokens_where_they_are(routed: Callable[..., LossContext]) -> None:
    model = model_of(LINE)
    Fold(FoldConfig(), setup_of(model))(routed(model, [[0.05, 0.5, 0.5]])).backward()
    assert model.layers[0].gate.weight.grad is None


def test_the_value_of_folding_is_the_squared_distance_and_the_anchor(routed: Callable[..., LossContext]) -> None:
    model = model_of(LINE)
    router = model.layers[0].gate
    with torch.no_grad():
        router.positions[3, 1] += 0.2  # one of four experts is 0.2 from home
    loss = Fold(FoldConfig(anchor=0.5), setup_of(model))
    value = loss(routed(model, [[0.225, 0.5, 0.5], [0.375, 0.5, 0.5]]))
    assert value.item() == pytest.approx(0.01 / 2 + 0.5 * 0.04 / 4, abs=1e-6)
    assert loss.told[0].item() == pytest.approx(0.05, abs=1e-6)


def test_the_anchor_pulls_experts_home(routed: Callable[..., LossContext]) -> None:
    model = model_of(LINE)
    router = model.layers[0].gate
    with torch.no_grad():
        router.positions[3, 1] += 0.2
    Fold(FoldConfig(anchor=0.5), setup_of(model))(routed(model, [[0.125, 0.5, 0.5]])).backward()
    assert router.positions.grad[3, 1].item() == pytest.approx(0.5 * 2 * 0.2 / 4, abs=1e-6)


def test_positions_that_layers_share_count_once(routed: Callable[..., LossContext]) -> None:
    model = model_of(LINE)
    first = model.layers[0].gate
    block = nn.Module()
    shape = RouterContext(hidden_size=3, num_experts=4, top_k=1, layer=1, first=first)
    block.gate = TorusRouter(TorusRouterConfig(grid=LINE), context=shape)
    block.gate.reset(0.02)
    model.layers.append(block)
    with torch.no_grad():
        block.gate.weight.copy_(torch.eye(3))
        first.positions[3, 1] += 0.2
    loss = Fold(FoldConfig(anchor=1.0), setup_of(model))
    assert loss(routed(model, [[0.125, 0.5, 0.5]])).item() == pytest.approx(0.04 / 4, abs=1e-6)


# ---- both


Make = Callable[[nn.Module], Any]
BOTH = pytest.mark.parametrize(
    "make",
    [lambda model: Smooth(SmoothConfig(), setup_of(model)), lambda model: Fold(FoldConfig(), setup_of(model))],
    ids=["smooth", "fold"],
)


@BOTH
def test_padding_counts_for_nothing(routed: Callable[..., LossContext], make: Make) -> None:
    found = []
    for hidden, mask in (
        ([[0.1, 0.5, 0.5], [0.3, 0.5, 0.5]], [True, True]),
        ([[0.1, 0.5, 0.5], [0.3, 0.5, 0.5], [float("nan")] * 3], [True, True, False]),
    ):
        model = model_of(LINE)
        ctx = routed(model, torch.nan_to_num(torch.tensor(hidden)), mask)
        ctx = dataclasses.replace(
            ctx, records=[dataclasses.replace(record, hidden=torch.tensor(hidden)) for record in ctx.records]
        )
        value = make(model)(ctx)
        value.backward()
        router = model.layers[0].gate
        grads = [p.grad for p in (router.weight, router.positions) if p.grad is not None]
        found.append((value.item(), torch.cat([grad.flatten() for grad in grads])))
    assert found[0][0] == pytest.approx(found[1][0])
    torch.testing.assert_close(found[0][1], found[1][1])


@BOTH
def test_the_value_does_not_depend_on_how_a_step_is_split(routed: Callable[..., LossContext], make: Make) -> None:
    hidden = torch.rand(12, 3, generator=torch.Generator().manual_seed(5))
    follows = torch.ones(12, dtype=torch.bool)
    follows[[0, 5]] = False  # two rows of 5 and 7 tokens
    step = tokens_by_domain(torch.zeros(12, dtype=torch.int64), None, 1, 0)
    totals = []
    for parts in ([slice(0, 12)], [slice(0, 5), slice(5, 12)]):
        model = model_of(LINE)
        loss, total = make(model), torch.zeros(())
        for part in parts:
            ctx = routed(model, hidden[part], follows=follows[part].tolist())
            own = tokens_by_domain(ctx.domain, None, 1, 0)
            routing = route(ctx.records, None, ctx.domain, 0, StepTokens(own=own, step=step))
            total = total + loss(dataclasses.replace(ctx, routing=routing)) * routing.fraction
        totals.append(total.item())
    assert totals[0] == pytest.approx(totals[1], rel=1e-5)


@BOTH
def test_a_micro_batch_of_padding_alone_is_finite(routed: Callable[..., LossContext], make: Make) -> None:
    model = model_of(LINE)
    ctx = routed(model, [[0.1, 0.2, 0.3]] * 2, mask=[False, False])
    own, step = torch.zeros(1), torch.full((1,), 12.0)
    routing = route(ctx.records, ctx.mask, ctx.domain, 0, StepTokens(own=own, step=step))
    assert make(model)(dataclasses.replace(ctx, routing=routing)).isfinite()


@pytest.mark.parametrize(
    ("loss", "make"),
    [
        ("smooth", lambda setup: Smooth(SmoothConfig(), setup)),
        ("fold", lambda setup: Fold(FoldConfig(), setup)),
        ("expert-delta", lambda setup: ExpertDelta(ExpertDeltaConfig(), setup)),
    ],
)
def test_a_linear_router_is_refused(loss: str, make: Callable[[LossSetup], Any]) -> None:
    model = nn.Module()
    shape = RouterContext(hidden_size=3, num_experts=4, top_k=1, layer=0)
    model.gate = LinearRouter(LinearRouterConfig(), context=shape)
    with pytest.raises(ConfigError, match=f"'{loss}' .* needs the router torus; remove the loss or set router: torus"):
        make(setup_of(model))


# ---- expert-delta


def frozen(model: Any) -> Any:
    """The model with its experts frozen, which ``positions`` asks for."""
    for layer in model.layers:
        layer.experts.requires_grad_(False)
    return model


@pytest.mark.parametrize("trained", ["gate_up_proj", "down_proj"])
def test_positions_beside_experts_that_train_are_refused(
    routed: Callable[..., LossContext], quantized: Any, trained: str
) -> None:
    """The differences of a model that has trained on are others, so that a resume would go on with other numbers."""
    quantized(PAIRS)
    model = frozen(model_of(LINE))
    model.layers[0].experts.get_parameter(trained).requires_grad_(True)
    loss = ExpertDelta(ExpertDeltaConfig(), setup_of(model))
    with pytest.raises(ConfigError, match=r"freeze: \[experts\].*mode: weights"):
        loss(routed(model, [[0.1, 0.5, 0.5]]))


def coded(rows: Sequence[Sequence[int]]) -> dict[str, Codes]:
    trits = torch.tensor(rows, dtype=torch.int8)[:, None]
    return {"layers.0.experts.gate_up_proj": Codes(trits=trits, scales=torch.ones(len(rows), 1).half())}


@pytest.fixture
def quantized(monkeypatch: pytest.MonkeyPatch) -> Callable[[Sequence[Sequence[int]]], None]:
    """Let every model have these codes."""

    def have(rows: Sequence[Sequence[int]]) -> None:
        monkeypatch.setattr(expert_delta, "quantization_of", lambda model: object())
        monkeypatch.setattr(expert_delta, "encode_experts", lambda model: coded(rows))

    return have


PAIRS = [[1, 1, 0, 0], [0, 0, 1, 1], [1, 1, 0, 0], [0, 0, 1, 1]]  # experts 0 and 2 are equal, and 1 and 3


def test_the_delta_of_positions_weighs_differing_codes_by_nearness(
    routed: Callable[..., LossContext], quantized: Any
) -> None:
    quantized(PAIRS)
    model = frozen(model_of(LINE))
    loss = ExpertDelta(ExpertDeltaConfig(), setup_of(model))
    value = loss(routed(model, [[0.1, 0.5, 0.5]]))
    # Neighbours on the ring are s = 1/4 apart and differ in all codes; opposite ones are 2 s apart and equal.
    near, far = 4 * torch.tensor(-0.5).exp(), 2 * torch.tensor(-2.0).exp()
    assert value.item() == pytest.approx((near / (near + far)).item(), rel=1e-5)
    assert loss.told[0].item() == 1.0


def test_descending_the_delta_moves_equal_experts_together(routed: Callable[..., LossContext], quantized: Any) -> None:
    quantized(PAIRS)
    model = frozen(model_of(LINE))
    router = model.layers[0].gate
    with torch.no_grad():  # on a perfect lattice all pulls cancel out
        router.positions += 0.02 * torch.randn(4, 3, generator=torch.Generator().manual_seed(0))
    loss = ExpertDelta(ExpertDeltaConfig(), setup_of(model))
    optimizer = torch.optim.SGD([router.positions], lr=0.05)
    values = []
    for _ in range(60):
        optimizer.zero_grad()
        value = loss(routed(model, [[0.1, 0.5, 0.5]]))
        value.backward()
        optimizer.step()
        values.append(value.item())
    assert values[-1] < 0.75 * values[0]
    trained = {name for name, p in model.named_parameters() if p.grad is not None}
    assert trained == {"layers.0.gate.positions"}


def test_the_l1_distance_of_frozen_experts_has_no_gradient_at_all() -> None:
    """SPEC E3.22: why the original's form trains nothing."""
    model = model_of(LINE)
    model.layers[0].experts.requires_grad_(False)
    weight = model.layers[0].experts.gate_up_proj
    assert not (weight[0] - weight[1]).abs().mean().requires_grad


def test_experts_that_are_far_apart_have_a_finite_delta(routed: Callable[..., LossContext], quantized: Any) -> None:
    experts = 64
    quantized([[expert % 2] for expert in range(experts)])
    model = frozen(model_of((experts, 1, 1)))
    router = model.layers[0].gate
    with torch.no_grad():  # two heaps at opposite ends: K between them is exp(-512)
        router.positions[:, 0] = torch.arange(experts) % 2 * 0.5
    value = ExpertDelta(ExpertDeltaConfig(), setup_of(model, experts))(routed(model, [[0.1, 0.5, 0.5]]))
    value.backward()
    assert value.item() == pytest.approx(0.0, abs=1e-6)
    assert bool(router.positions.grad.isfinite().all())


def test_without_a_quantizer_weights_are_compared_in_units_of_their_size(routed: Callable[..., LossContext]) -> None:
    model = frozen(model_of(LINE))
    experts = model.layers[0].experts
    with torch.no_grad():  # every expert's weights are +1 or -1: neighbours differ by 2 in all of them
        for weight in experts.parameters():
            weight[:] = torch.tensor([1.0, -1.0, 1.0, -1.0])[:, None, None]
    loss = ExpertDelta(ExpertDeltaConfig(), setup_of(model))
    loss(routed(model, [[0.1, 0.5, 0.5]]))
    assert loss.told[0].item() == pytest.approx(2.0)


def test_codes_are_compared_once(
    routed: Callable[..., LossContext], quantized: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    quantized(PAIRS)
    calls = []
    monkeypatch.setattr(expert_delta, "encode_experts", lambda model: calls.append(1) or coded(PAIRS))
    model = frozen(model_of(LINE))
    loss = ExpertDelta(ExpertDeltaConfig(), setup_of(model))
    values = [loss(routed(model, [[0.1, 0.5, 0.5]])).item() for _ in range(3)]
    assert calls == [1]
    assert values[0] == values[2]


def test_the_delta_of_weights_is_the_mean_difference_of_neighbours(routed: Callable[..., LossContext]) -> None:
    model = model_of(LINE)
    experts = model.layers[0].experts
    with torch.no_grad():
        experts.gate_up_proj[1] = 3.0  # 2 of 3 weights; two of four edges touch expert 1
    loss = ExpertDelta(ExpertDeltaConfig(mode="weights"), setup_of(model))
    value = loss(routed(model, [[0.1, 0.5, 0.5]]))
    value.backward()
    assert value.item() == pytest.approx(3.0 * 2 * 2 / (4 * 3))
    # Slopes of |3 - 0| over two edges, for expert 1 and against its neighbours 0 and 2.
    slopes = experts.gate_up_proj.grad[:, 0, 0] * 12
    torch.testing.assert_close(slopes, torch.tensor([-1.0, 2.0, -1.0, 0.0]))
    assert loss.told[0].item() == pytest.approx(1.0 / (3.0 * 2 / 12))


def test_the_gradient_of_the_delta_of_weights_is_that_of_the_formula(routed: Callable[..., LossContext]) -> None:
    model = model_of((4, 2, 1))
    weight = model.layers[0].experts.gate_up_proj
    with torch.no_grad():
        weight.copy_(torch.randn(weight.shape, generator=torch.Generator().manual_seed(1)))
    ExpertDelta(ExpertDeltaConfig(mode="weights"), setup_of(model, 8))(routed(model, [[0.1, 0.5, 0.5]])).backward()
    found = weight.grad.clone()
    weight.grad = None
    edges = model.layers[0].gate.edges()
    down = model.layers[0].experts.down_proj[0].numel()
    total = (weight[edges[:, 0]] - weight[edges[:, 1]]).abs().sum()
    (total / (len(edges) * (weight[0].numel() + down))).backward()
    torch.testing.assert_close(found, weight.grad)


def test_a_single_expert_has_no_delta() -> None:
    with pytest.raises(ConfigError, match="'expert-delta' needs a model with experts"):
        ExpertDelta(ExpertDeltaConfig(), setup_of(model_of((1, 1, 1)), 1))
