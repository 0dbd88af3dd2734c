from __future__ import annotations

import copy
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ["HF_HUB_OFFLINE"] = "1"

import pytest
import torch
from phasegate.core.config.schema import Ref
from phasegate.core.model.builder import ModelContext
from phasegate.core.model.loading import read_model
from phasegate.core.model.parameters import routers_of
from phasegate.core.model.router import RouterContext, Takeover
from phasegate.core.training.freezing import freeze, parameter_groups
from phasegate.plugins.routers.geometry import distance, into_cell, lattice
from phasegate.plugins.routers.linear import LinearRouter
from phasegate.plugins.routers.options import LinearRouterConfig, TorusRouterConfig
from phasegate.plugins.routers.torus import TorusRouter, _Logits
from phasegate.registry.current import using
from phasegate.registry.errors import ConfigError
from phasegate.registry.plugins import Plugins
from phasegate.registry.registry import Registry
from torch import nn
from transformers import PreTrainedModel

WIDTH = 16


def torus(
    experts: int = 8,
    *,
    width: int = WIDTH,
    layer: int = 0,
    first: TorusRouter | None = None,
    seed: int = 0,
    **options: Any,
) -> TorusRouter:
    context = RouterContext(hidden_size=width, num_experts=experts, top_k=1, layer=layer, first=first)
    router = TorusRouter(TorusRouterConfig(**options), context=context)
    state = torch.get_rng_state()
    torch.manual_seed(seed)
    router.reset(0.02)
    torch.set_rng_state(state)
    return router


def draw(*shape: int, seed: int = 1) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def pair() -> nn.ModuleList:
    """Routers of two layers that share their positions."""
    first = torus()
    return nn.ModuleList([first, torus(layer=1, first=first, seed=1)])


def test_logits_are_squared_distances_over_the_temperature() -> None:
    router = torus(2, width=3, temperature=0.1)
    with torch.no_grad():
        router.weight.copy_(torch.eye(3))
        router.bias.copy_(torch.tensor([0.0, 0.0, 0.5]))
        router.positions.copy_(torch.tensor([[0.1, 0.5, 0.5], [0.5, 0.9, 0.5]]))
    # z = (0.9, 0.5, 0.5): 0.2 from the first across the seam; 0.4 and 0.4 from the second.
    logits, weights, index = router(torch.tensor([[1.9, -0.5, 3.0]]))
    torch.testing.assert_close(logits, torch.tensor([[-0.4, -3.2]]), atol=1e-5, rtol=0)
    assert index.tolist() == [[0]]
    assert weights.tolist() == [[1.0]]


def test_the_coordinates_are_the_projection_modulo_one() -> None:
    router = torus(2, width=3)
    with torch.no_grad():
        router.weight.copy_(torch.eye(3))
        router.bias.copy_(torch.tensor([0.0, 0.0, 0.5]))
    hidden = torch.tensor([[1.75, -0.25, 3.0]], requires_grad=True)
    places = router.coordinates(hidden)
    assert places.tolist() == [[0.75, 0.75, 0.5]]
    places.sum().backward()
    assert hidden.grad is not None
    assert hidden.grad.tolist() == [[1.0, 1.0, 1.0]]


def plain(router: TorusRouter, hidden: torch.Tensor) -> torch.Tensor:
    """The logits as the formula has them, recorded step by step."""
    places = (hidden @ router.weight.T + router.bias) % 1
    return -(distance(places[:, None], router.positions[None]) ** 2) / router.temperature


def gradients(router: TorusRouter, scores: Callable[[torch.Tensor], torch.Tensor]) -> list[torch.Tensor]:
    """Those of the hidden states and of the parameters, for a model that uses the router twice."""
    hidden = draw(50, WIDTH).requires_grad_()
    logits = scores(hidden) + 2.0 * scores(hidden.flip(0))
    wanted = [hidden, router.weight, router.bias, router.positions]
    return [*torch.autograd.grad((logits * draw(50, 12, seed=2)).sum(), wanted), logits.detach()]


def test_the_closed_form_gradient_is_that_of_the_formula() -> None:
    router = torus(12, spread=2.0)
    found, wanted = gradients(router, router.scores), gradients(router, lambda hidden: plain(router, hidden))
    for mine, theirs in zip(found, wanted, strict=True):
        torch.testing.assert_close(mine, theirs, atol=2e-3, rtol=1e-4)
    assert found[3].abs().max() > 1.0


def test_the_closed_form_gradient_is_that_of_small_differences() -> None:
    hidden, weight, bias = (draw(*shape, seed=sum(shape)).double() for shape in ((4, 6), (3, 6), (3,)))
    positions, temperature = into_cell(draw(5, 3, seed=2)).double(), torch.tensor(0.3, dtype=torch.float64)
    inputs = [tensor.requires_grad_() for tensor in (hidden, weight, bias, positions)]
    assert torch.autograd.gradcheck(lambda *given: _Logits.apply(*given, temperature), inputs)


def test_what_is_frozen_gets_no_gradient() -> None:
    router, hidden = torus(), draw(10, WIDTH)
    router.weight.requires_grad_(False)
    router.scores(hidden).square().sum().backward()
    assert router.weight.grad is None
    assert router.bias.grad is not None
    assert router.positions.grad is not None


def test_a_gradient_of_the_gradient_is_refused_and_not_wrong() -> None:
    router = torus()
    hidden = draw(4, WIDTH).requires_grad_()
    (gradient,) = torch.autograd.grad(router.scores(hidden).square().sum(), hidden, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        gradient.sum().backward()


def test_scores_need_no_gradient() -> None:
    router, hidden = torus(), draw(10, WIDTH)
    with torch.no_grad():
        quiet = router.scores(hidden)
    assert not quiet.requires_grad
    assert torch.equal(quiet, router.scores(hidden))


def test_the_task_reaches_the_positions_through_a_top_1_gate() -> None:
    router = torus()
    (router(draw(10, WIDTH))[1] * draw(10, 1, seed=2)).sum().backward()
    assert router.positions.grad is not None
    assert router.positions.grad.abs().sum() > 1e-3


@pytest.mark.parametrize("gate", ["normalized", "softmax", "straight-through"])
def test_the_gates_are_those_of_the_linear_router(gate: Any) -> None:
    context = RouterContext(hidden_size=WIDTH, num_experts=8, top_k=2, layer=0)
    linear = LinearRouter(LinearRouterConfig(gate=gate), context=context)
    probabilities = torch.tensor([[0.5, 0.2], [0.9, 0.0]])
    assert torch.equal(torus(gate=gate).gate(probabilities), linear.gate(probabilities))
    assert torus(gate=gate).stock_normalisation() is None


def gini(load: torch.Tensor) -> float:
    ranked = load.sort().values.double()
    places = torch.arange(1, len(ranked) + 1)
    return float(((2 * places - len(ranked) - 1) * ranked).sum() / (len(ranked) * ranked.sum()))


@pytest.mark.parametrize(("spread", "wanted", "within"), [(0.1, 0.90, 0.03), (0.2, 0.57, 0.03), (0.3, 0.22, 0.03)])
def test_too_narrow_a_map_leaves_experts_without_tokens(spread: float, wanted: float, within: float) -> None:
    router = torus(128, jitter=0.0)
    with torch.no_grad():
        router.weight.copy_(spread * torch.eye(3, WIDTH))  # exactly as wide, in directions of their own
    load = torch.bincount(router(draw(10_000, WIDTH))[2].flatten(), minlength=128)
    assert gini(load) == pytest.approx(wanted, abs=within)


def test_the_default_map_spreads_tokens_evenly() -> None:
    router = torus(128, width=64, jitter=0.0)
    load = torch.bincount(router(draw(50_000, 64))[2].flatten(), minlength=128)
    # 0.02 and what chance adds: 1 / sqrt(pi n) for n tokens per expert.
    assert gini(load) < 0.02 + 2 / math.sqrt(math.pi * 50_000 / 128)


def test_a_fresh_router_has_its_experts_about_the_lattice_and_remembers_where() -> None:
    router = torus(16)
    away = distance(router.positions, lattice((4, 2, 2)))
    # sqrt of a sum of three squares of deviation 0.01
    assert 0.005 < away.mean() < 0.03
    assert torch.equal(router.home, router.positions)
    assert router.sites.tolist() == list(range(16))
    assert float(router.temperature) == pytest.approx(0.05)


def test_shared_positions_are_one_parameter(pair: nn.ModuleList) -> None:
    names = ["0.bias", "0.positions", "0.weight", "1.bias", "1.weight"]
    assert sorted(name for name, _ in pair.named_parameters(remove_duplicate=False)) == names
    buffers = ["0.home", "0.selection_bias", "0.sites", "0.temperature", "1.selection_bias", "1.temperature"]
    assert sorted(pair.state_dict()) == sorted(names + buffers)
    assert pair[1].positions is pair[0].positions
    assert pair[1].home is pair[0].home
    assert pair[1].sites is pair[0].sites
    assert torch.equal(pair[1].edges(), pair[0].edges())


def test_every_layer_moves_the_shared_positions(pair: nn.ModuleList) -> None:
    hidden = draw(10, WIDTH)
    pair[1].scores(hidden).square().sum().backward()
    alone = pair[0].positions.grad.clone()
    pair[0].scores(hidden).square().sum().backward()
    assert alone.abs().sum() > 0
    assert (pair[0].positions.grad - alone).abs().sum() > 0


def test_a_copy_of_the_model_shares_within_itself(pair: nn.ModuleList) -> None:
    twin = copy.deepcopy(pair)
    assert twin[1].positions is twin[0].positions
    assert twin[0].positions is not pair[0].positions
    with torch.no_grad():
        twin[0].positions.add_(0.1)
    assert not torch.equal(twin[1](draw(50, WIDTH))[0], pair[1](draw(50, WIDTH))[0])


def test_sharing_outlives_a_cast_and_a_load(pair: nn.ModuleList) -> None:
    state = copy.deepcopy(pair.state_dict())
    pair.to(torch.float64)
    assert pair[1].positions.dtype == torch.float64
    state["0.positions"] += 0.125
    pair.load_state_dict(state)
    assert torch.equal(pair[1].positions.float(), state["0.positions"])


def test_layers_can_have_positions_of_their_own() -> None:
    first = torus(shared=False)
    second = torus(shared=False, layer=1, first=first, seed=1)
    assert "positions" in dict(second.named_parameters())
    assert not torch.equal(first.positions, second.positions)


def test_positions_cannot_be_shared_with_another_kind_of_router() -> None:
    context = RouterContext(hidden_size=WIDTH, num_experts=8, top_k=1, layer=0)
    with pytest.raises(ConfigError, match=r"which is a LinearRouter.*shared: false"):
        torus(first=LinearRouter(LinearRouterConfig(), context=context))


def test_a_router_has_no_attributes_that_it_does_not_have() -> None:
    router = torus(first=torus())
    with pytest.raises(AttributeError, match="'TorusRouter' object has no attribute 'nonsense'"):
        router.nonsense  # noqa: B018


def test_weight_decay_leaves_positions_and_bias_alone(pair: nn.ModuleList) -> None:
    decayed = [name for name, _ in pair.named_parameters()]
    groups = parameter_groups(pair, freeze(pair, ()), {}, decayed, rate=1e-3, decay=0.1)
    decays = {id(p) for group in groups if group["weight_decay"] for p in group["params"]}
    assert decays == {id(pair[0].weight), id(pair[1].weight)}


def test_positions_are_brought_back_into_the_cell_after_a_step() -> None:
    router = torus()
    with torch.no_grad():
        router.positions[:2] = torch.tensor([[1.25, -0.25, 0.5], [-1e-9, 1.0, 2.5]])
    parameter = router.positions
    router.after_step(0.0)
    assert router.positions is parameter
    assert router.positions[:2].tolist() == [[0.25, 0.75, 0.5], [0.0, 0.0, 0.5]]


def test_the_temperature_falls_geometrically_and_never_rises() -> None:
    router = torus(temperature=0.08, final_temperature=0.005)
    seen = []
    for progress in (0.0, 0.5, 1.0, 0.0, 0.5, 1.0):  # two steps of training
        router.after_step(progress)
        seen.append(float(router.temperature))
    assert seen == pytest.approx([0.08, 0.02, 0.005, 0.005, 0.005, 0.005])


def test_without_a_final_temperature_it_stays() -> None:
    router = torus(temperature=0.08)
    router.after_step(1.0)
    assert float(router.temperature) == pytest.approx(0.08)


def test_a_temperature_that_would_rise_is_refused() -> None:
    with pytest.raises(ValueError, match="only falls"):
        TorusRouterConfig(temperature=0.01, final_temperature=0.05)


def test_the_temperature_is_saved() -> None:
    router, fresh = torus(final_temperature=0.005), torus(final_temperature=0.005)
    router.after_step(1.0)
    fresh.load_state_dict(router.state_dict())
    assert float(fresh.temperature) == pytest.approx(0.005)


def test_tokens_are_routed_one_by_one() -> None:
    router, hidden = torus(), draw(40, WIDTH)
    order = torch.randperm(40, generator=torch.Generator().manual_seed(3))
    whole = router(hidden)
    for shuffled, straight in zip(router(hidden[order]), whole, strict=True):
        torch.testing.assert_close(shuffled, straight[order])
    padded = router(torch.cat([hidden, torch.full((7, WIDTH), 1e4)]))
    for longer, straight in zip(padded, whole, strict=True):
        torch.testing.assert_close(longer[:40], straight)


def test_experts_can_be_renumbered() -> None:
    router, hidden = torus(), draw(40, WIDTH)
    before = router(hidden)[0]
    order = torch.randperm(8, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        router.positions.copy_(router.positions[order])
    assert torch.equal(router(hidden)[0], before[:, order])


def test_a_bf16_router_keeps_temperature_and_home_and_gives_finite_logits() -> None:
    router = torus()
    temperature, home = float(router.temperature), router.home.clone()
    router.to(torch.bfloat16)
    hidden = draw(40, WIDTH).bfloat16().requires_grad_()
    logits, weights, _ = router(hidden)
    weights.sum().backward()
    assert (logits.dtype, weights.dtype) == (torch.bfloat16, torch.bfloat16)
    assert torch.isfinite(logits).all()
    assert hidden.grad is not None
    assert torch.isfinite(hidden.grad).all()
    assert float(router.temperature) == temperature
    assert torch.equal(router.home, home)


def test_autocast_does_not_round_the_places() -> None:
    router, hidden = torus(), draw(40, WIDTH)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rounded = router(hidden)[0], router.coordinates(hidden)
    assert torch.equal(rounded[0], router(hidden)[0])
    assert torch.equal(rounded[1], router.coordinates(hidden))


def takeover(distances: torch.Tensor, seed: int = 3) -> Takeover:
    hidden = draw(4000, WIDTH) @ draw(WIDTH, WIDTH, seed=9) + 5.0
    return Takeover(hidden=hidden, old=nn.Identity(), distances=distances, seed=seed)


def cube(seed: int = 5) -> torch.Tensor:
    """Distances of eight experts that sit on a cube in an order of their own."""
    order = torch.randperm(8, generator=torch.Generator().manual_seed(seed))
    sites = lattice((2, 2, 2))[order]
    return distance(sites[:, None], sites[None])


def test_taking_over_places_like_experts_side_by_side() -> None:
    router, distances = torus(), cube()
    report = router.take_over(takeover(distances))
    assert report["placement/cost"] == pytest.approx(0.5)  # every edge of the cube
    # Of 28 pairs 12 are 1/2 apart, 12 sqrt(2)/2 and 4 sqrt(3)/2.
    assert report["placement/random"] == pytest.approx((6 + 6 * math.sqrt(2) + 2 * math.sqrt(3)) / 28)
    pairs = router.edges()
    assert distances[pairs[:, 0], pairs[:, 1]].tolist() == pytest.approx([0.5] * 12)
    assert distance(router.positions, lattice((2, 2, 2))[router.sites]).max() < 0.06
    assert torch.equal(router.home, router.positions)


def test_taking_over_fits_the_map_to_the_hidden_states() -> None:
    router, told = torus(spread=0.4), takeover(cube())
    with torch.no_grad():
        router.bias.fill_(0.3)
    router.take_over(told)
    spread = (told.hidden @ router.weight.T).std(dim=0)
    assert spread.tolist() == pytest.approx([0.4] * 3, rel=1e-3)
    assert router.bias.tolist() == [0.0] * 3


def test_taking_over_covers_the_torus_where_hidden_states_differ_mostly_in_one_direction() -> None:
    router, hidden = torus(placement="lattice", jitter=0.0), draw(4000, WIDTH)
    hidden[:, 0] *= 40.0
    router.take_over(Takeover(hidden=hidden, old=nn.Identity(), distances=cube(), seed=3))
    assert torch.corrcoef((hidden @ router.weight.T).T).triu(1).abs().max() < 1e-3
    # Chance alone gives 1 / sqrt(pi 500) = 0.025.
    assert gini(torch.bincount(router(hidden)[2].flatten(), minlength=8)) < 0.05


@pytest.mark.parametrize("placement", ["anneal", "embed", "lattice"])
def test_taking_over_depends_on_the_seed_alone(placement: Any) -> None:
    one, same, other = (torus(placement=placement, seed=seed) for seed in (0, 1, 2))
    for router, seed in ((one, 3), (same, 3), (other, 4)):
        router.take_over(takeover(cube(), seed))
    for name, tensor in one.state_dict().items():
        assert torch.equal(tensor, same.state_dict()[name])
    assert not torch.equal(one.weight, other.weight)
    assert sorted(one.sites.tolist()) == list(range(8))


def test_the_lattice_placement_keeps_the_order_of_experts() -> None:
    router = torus(placement="lattice")
    router.take_over(takeover(cube()))
    assert router.sites.tolist() == list(range(8))


def test_only_the_owner_of_shared_positions_places_experts(pair: nn.ModuleList) -> None:
    pair[0].take_over(takeover(cube()))
    placed, weight = pair[0].positions.clone(), pair[0].weight.clone()
    assert pair[1].take_over(takeover(cube())) == {}
    assert torch.equal(pair[0].positions, placed)
    assert not torch.equal(pair[1].weight, weight)


def test_hidden_states_that_do_not_differ_are_refused() -> None:
    flat = Takeover(hidden=torch.ones(5, WIDTH), old=nn.Identity(), distances=cube(), seed=0)
    with pytest.raises(ConfigError, match="the 5 hidden states that reach the router of layer 2 do not differ"):
        torus(layer=2).take_over(flat)


def test_edges_are_pairs_of_experts_and_not_of_sites() -> None:
    router = torus(4, grid=(4, 1, 1))
    router.sites.copy_(torch.tensor([0, 2, 1, 3]))  # around the ring: experts 0, 2, 1, 3
    assert router.edges().tolist() == [[0, 2], [0, 3], [1, 2], [1, 3]]


@pytest.mark.parametrize(
    ("small", "large", "copies"), [((2, 2, 2), (4, 2, 2), 2), ((4, 2, 2), (4, 4, 2), 2), ((2, 2, 2), (4, 2, 4), 4)]
)
def test_on_the_lattice_a_token_goes_to_a_copy_of_its_expert(
    small: tuple[int, int, int], large: tuple[int, int, int], copies: int
) -> None:
    experts = math.prod(small)
    old, new = torus(experts, grid=small, jitter=0.0), torus(copies * experts, grid=large, seed=1)
    order = torch.randperm(experts, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        old.positions.copy_(old.positions[order])
        old.sites.copy_(order)
        old.temperature.fill_(0.02)
    new.extend_from(old, copies)
    hidden = draw(2000, WIDTH)
    assert torch.equal(new(hidden)[2] // copies, old(hidden)[2])
    assert float(new.temperature) == pytest.approx(0.02)
    # The cells are those of the larger lattice, and each copy knows its own.
    torch.testing.assert_close(new.positions, lattice(large)[new.sites])


def test_copies_lie_a_quarter_of_the_old_spacing_to_either_side() -> None:
    old, new = torus(2, grid=(2, 1, 1)), torus(4, grid=(4, 1, 1))
    with torch.no_grad():
        old.positions.copy_(torch.tensor([[0.05, 0.5, 0.5], [0.7, 0.6, 0.5]]))
        old.home.copy_(torch.tensor([[0.25, 0.5, 0.5], [0.75, 0.5, 0.5]]))
    old.selection_bias.copy_(torch.tensor([0.5, -0.25]))
    new.extend_from(old, 2)
    wanted = [[0.925, 0.5, 0.5], [0.175, 0.5, 0.5], [0.575, 0.6, 0.5], [0.825, 0.6, 0.5]]
    torch.testing.assert_close(new.positions, torch.tensor(wanted))
    assert new.home[:, 0].tolist() == pytest.approx([0.125, 0.375, 0.625, 0.875])
    assert new.selection_bias.tolist() == [0.25, 0.25, -0.125, -0.125]
    assert torch.equal(new.weight, old.weight)


def test_a_grid_that_divides_no_cells_is_refused_with_one_that_does() -> None:
    with pytest.raises(ConfigError, match=r"\[4, 4, 1\].*\[2, 2, 2\] into 2; set .* to \[4, 2, 2\]"):
        torus(16, grid=(4, 4, 1)).extend_from(torus(8), 2)


def test_a_grid_without_a_cell_for_every_expert_is_refused() -> None:
    with pytest.raises(ConfigError, match="8 experts"):
        torus(8, grid=(3, 2, 1))


@pytest.fixture(scope="module")
def registry() -> Registry:
    return Plugins.load(()).components()


def model(registry: Registry, **options: Any) -> PreTrainedModel:
    sizes = {
        "head_dim": 8,
        "hidden_size": 32,
        "initializer_range": 0.06,
        "moe_intermediate_size": 16,
        "num_attention_heads": 4,
        "num_experts": 8,
        "num_experts_per_tok": 1,
        "num_hidden_layers": 2,
    }
    context = ModelContext(
        registry=registry,
        router=Ref(use="torus", options=options),
        derived=sizes,
        vocab_size=300,
        sequence_length=32,
    )
    built: PreTrainedModel = registry.build("model", "moe", {}, context=context).build(0)
    return built.eval()


@pytest.mark.parametrize("shared", [False, True])
def test_a_model_with_this_router_comes_back_bit_for_bit(registry: Registry, tmp_path: Path, shared: bool) -> None:
    with using(registry):
        built = model(registry, shared=shared, final_temperature=0.005)
        for _, _, router in routers_of(built):
            assert isinstance(router, TorusRouter)
            router.after_step(0.5)
            with torch.no_grad():
                router.positions.add_(0.01)
        built.save_pretrained(tmp_path)
        loaded = read_model(tmp_path, local_files_only=True)
    state, back = built.state_dict(), loaded.state_dict()
    assert state.keys() == back.keys()
    assert [name for name in state if not torch.equal(state[name], back[name])] == []
    ids = torch.randint(5, 290, (2, 16), generator=torch.Generator().manual_seed(7))
    with torch.no_grad():
        assert torch.equal(built(ids).logits, loaded(ids).logits)


def test_a_model_shares_the_positions_of_its_first_router(registry: Registry) -> None:
    with using(registry):
        built = model(registry)
    assert [name for name, _ in built.named_parameters() if name.endswith("positions")] == [
        "model.layers.0.mlp.gate.positions"
    ]
    one, other = (router for _, _, router in routers_of(built))
    assert other.positions is one.positions
