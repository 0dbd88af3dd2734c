"""Symmetry breakers: what they change, that clones need them, and that drift stays within its bound."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from phasegate.core.model.breaking import Drift, bounded_break, break_experts, drop, noise
from phasegate.core.model.parameters import expert_parameters, routers_of
from phasegate.registry.errors import ConfigError
from torch import nn


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def clones(experts: int = 4, width: int = 20, hidden: int = 12) -> tuple[torch.Tensor, torch.Tensor]:
    """Identical experts whose gate, up and down have the standard deviations 1, 2 and 3 and the means 0, 5 and -5."""
    draws = generator(9)
    gate = torch.randn(width, hidden, generator=draws)
    up = 5.0 + 2.0 * torch.randn(width, hidden, generator=draws)
    down = -5.0 + 3.0 * torch.randn(hidden, width, generator=draws)
    return torch.cat([gate, up]).repeat(experts, 1, 1), down.repeat(experts, 1, 1)


def cloned(model: Any) -> Any:
    """The model with all experts of a layer equal to the first."""
    with torch.no_grad():
        for name in expert_parameters(model):
            weight = model.get_parameter(name)
            weight.copy_(weight[:1].expand_as(weight).clone())
    return model


def cosine(weights: torch.Tensor) -> torch.Tensor:
    """The mean cosine of all pairs of experts."""
    flat = nn.functional.normalize(weights.flatten(1), dim=1)
    total = flat @ flat.T
    experts = len(weights)
    return (total.sum() - total.diagonal().sum()) / (experts * (experts - 1))


def gradients(model: Any, ids: torch.Tensor) -> list[float]:
    """The largest gradient of the language loss on each router's weight."""
    model.zero_grad()
    model(ids, labels=ids).loss.backward()
    return [float(router.weight.grad.abs().max()) for _, _, router in routers_of(model)]


def test_noise_has_the_asked_share_of_each_matrix_s_deviation() -> None:
    weights = torch.randn(2, 100, 100, generator=generator(3)) * torch.tensor([1.0, 7.0])[:, None, None]
    added = noise(weights, 0.01, generator()) - weights
    assert added.std(dim=(1, 2)).tolist() == pytest.approx([0.01, 0.07], rel=0.03)


def test_noise_is_the_same_draw_at_every_scale() -> None:
    gate_up, _ = clones()
    strong, weak = (noise(gate_up, scale, generator()) - gate_up for scale in (0.4, 0.1))
    assert torch.allclose(strong, 4 * weak, atol=1e-5)


def test_dropping_begins_the_asked_share_of_units_anew_in_all_three_matrices() -> None:
    gate_up, down = clones()
    new_gate_up, new_down = drop(gate_up, down, 0.5, generator())
    gate, up = ((new_gate_up != gate_up).all(-1)).chunk(2, dim=1)
    units = (new_down != down).all(1)  # shape: (4, 20)
    assert units.sum(1).tolist() == [10, 10, 10, 10]
    assert torch.equal(gate, units)
    assert torch.equal(up, units)
    assert torch.equal((new_gate_up != gate_up).any(-1), torch.cat([units, units], 1))
    assert torch.equal((new_down != down).any(1), units)


def test_every_expert_drops_units_of_its_own() -> None:
    gate_up, down = clones()
    units = (drop(gate_up, down, 0.5, generator())[1] != down).all(1)
    assert len({tuple(row.tolist()) for row in units}) == 4


def test_dropped_units_have_the_statistics_of_their_own_matrix() -> None:
    gate_up, down = clones(experts=1, width=200, hidden=100)
    new_gate_up, new_down = drop(gate_up, down, 1.0, generator())
    parts = (*new_gate_up.chunk(2, dim=1), new_down)
    assert [float(part.mean()) for part in parts] == pytest.approx([0.0, 5.0, -5.0], abs=0.1)
    assert [float(part.std()) for part in parts] == pytest.approx([1.0, 2.0, 3.0], rel=0.03)


def test_a_smaller_share_drops_some_of_the_same_units_to_the_same_values() -> None:
    gate_up, down = clones()
    large, small = (drop(gate_up, down, share, generator())[1] for share in (0.5, 0.25))
    dropped = (small != down).all(1)  # shape: (4, 20)
    assert dropped.sum(1).tolist() == [5, 5, 5, 5]
    assert torch.equal(small.mT[dropped], large.mT[dropped])


@pytest.mark.parametrize(("share", "scale"), [(-0.1, -1.0), (1.1, -0.01), (math.nan, math.nan)])
def test_a_strength_that_means_nothing_is_an_error(share: float, scale: float) -> None:
    gate_up, down = clones()
    with pytest.raises(ConfigError, match="must be from 0 to 1"):
        drop(gate_up, down, share, generator())
    with pytest.raises(ConfigError, match="must be from 0 to inf"):
        noise(gate_up, scale, generator())


@pytest.mark.parametrize("kind", ["drop", "noise"])
def test_breaking_makes_every_pair_of_experts_different_in_every_layer(build: Any, kind: Any) -> None:
    model = cloned(build())
    break_experts(model, kind, 0.25, seed=1)
    for name in expert_parameters(model):
        rows = model.get_parameter(name).flatten(1)
        assert len(torch.unique(rows, dim=0)) == 5


def changed_by(model: Any, **options: Any) -> dict[str, list[bool]]:
    """For every weight that breaking changes, which rows along its first axis it does."""
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    break_experts(model, seed=1, **options)
    rows = {
        name: (weight != before[name]).flatten(1).any(1) for name, weight in model.named_parameters() if weight.ndim > 1
    }
    return {name: changed.tolist() for name, changed in rows.items() if changed.any()}


def test_breaking_clones_touches_all_experts_and_nothing_else(build: Any) -> None:
    model = cloned(build(num_experts=6))
    changed = changed_by(model, kind="noise", strength=0.01)
    assert changed == dict.fromkeys(expert_parameters(model), [True] * 6)


@pytest.mark.parametrize(("kind", "strength"), [("drop", 0.5), ("noise", 0.01)])
def test_breaking_copies_spares_the_first_and_touches_the_others_and_their_rows_in_the_router(
    build: Any, kind: Any, strength: float
) -> None:
    model = cloned(build(num_experts=6))
    changed = changed_by(model, kind=kind, strength=strength, spare=3)
    routers = [f"{name}.weight" for name, _, _ in routers_of(model)]
    assert set(changed) == {*expert_parameters(model), *routers}
    assert all(rows == [False, True, True, False, True, True] for rows in changed.values())


def test_noise_on_routers_is_a_hundredth_at_most(build: Any) -> None:
    model = build(num_experts=6, hidden_size=256)
    router = routers_of(model)[0][2]
    before = router.weight.detach().clone()
    break_experts(model, "drop", 0.5, seed=1, spare=2)
    assert float((router.weight.detach() - before)[1::2].std() / before.std()) == pytest.approx(0.01, rel=0.1)


def test_noise_on_a_model_follows_gate_and_up_apart(build: Any) -> None:
    model = cloned(build())
    weight = model.model.layers[0].mlp.experts.gate_up_proj
    with torch.no_grad():
        weight[:, :16] = 0.0  # the gate: no deviation, so no noise
    break_experts(model, "noise", 0.1, seed=1)
    assert not weight[:, :16].any()
    assert len(torch.unique(weight[:, 16:].flatten(1), dim=0)) == 5


def test_equal_seeds_break_equally_and_leave_the_global_generator_alone(build: Any) -> None:
    state = torch.get_rng_state()
    weights = []
    for seed in (1, 1, 2):
        model = cloned(build())
        break_experts(model, "drop", 0.5, seed=seed)
        weights.append(model.model.layers[1].mlp.experts.down_proj)
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])
    assert torch.equal(state, torch.get_rng_state())


def test_a_model_without_experts_cannot_be_broken() -> None:
    with pytest.raises(ConfigError, match="has no stacked experts"):
        break_experts(nn.Linear(2, 2), "noise", 0.01, seed=0)


def test_the_cosine_of_identical_experts_has_no_gradient_and_that_of_broken_ones_has() -> None:
    equal = clones()[0].requires_grad_()
    cosine(equal).backward()
    broken = noise(equal.detach(), 0.1, generator()).requires_grad_()
    cosine(broken).backward()
    assert equal.grad is not None and float(equal.grad.abs().max()) < 1e-7
    assert broken.grad is not None and float(broken.grad.abs().max()) > 1e-5


def test_with_a_normalised_gate_and_one_expert_the_router_never_learns(build: Any, ids: torch.Tensor) -> None:
    model = cloned(build("normalized", num_experts_per_tok=1))
    assert max(gradients(model, ids)) < 1e-7
    break_experts(model, "drop", 0.5, seed=0)
    assert max(gradients(model, ids)) < 1e-7


def test_with_a_normalised_gate_and_two_experts_the_router_learns_once_these_differ(
    build: Any, ids: torch.Tensor
) -> None:
    model = cloned(build("normalized"))
    assert max(gradients(model, ids)) < 1e-7
    break_experts(model, "drop", 0.5, seed=0)
    assert min(gradients(model, ids)) > 1e-5


def test_with_a_straight_through_gate_the_router_learns_of_broken_clones(build: Any, ids: torch.Tensor) -> None:
    model = cloned(build("straight-through", num_experts_per_tok=1))
    break_experts(model, "drop", 0.5, seed=0)
    assert min(gradients(model, ids)) > 1e-5


class Toy(nn.Module):
    """One expert matrix; its nats are 2 plus the distance that the weight was moved."""

    def __init__(self) -> None:
        super().__init__()
        self.experts = nn.Module()
        self.experts.num_experts = 2  # type: ignore[assignment]
        self.experts.down_proj = nn.Parameter(torch.ones(2, 1, 1))


def nats(toy: Toy) -> float:
    return 2.0 + float(toy.experts.down_proj.detach().max()) - 1.0  # type: ignore[operator]


def move(toy: Toy, strength: float) -> None:
    toy.experts.down_proj.add_(strength)  # type: ignore[operator]


@pytest.fixture
def toy() -> Toy:
    return Toy()


def test_a_strength_within_the_bound_is_used_as_asked(toy: Toy) -> None:
    drift = bounded_break(toy, 0.04, 0.05, nats, move)  # exp(0.04) - 1 = 4.08 %
    assert (drift.asked, drift.used, drift.within) == (0.04, 0.04, True)
    assert drift.before == drift.cloned == pytest.approx(math.exp(2.0))
    assert drift.broken == pytest.approx(math.exp(2.04))


def test_the_strength_is_halved_from_the_clone_until_the_bound_holds(toy: Toy) -> None:
    # exp(0.4), exp(0.2) and exp(0.1) are more than 5 % above 1, exp(0.05) = 1.0513 too, exp(0.025) = 1.0253 is not.
    drift = bounded_break(toy, 0.4, 0.05, nats, move)
    assert drift.used == pytest.approx(0.025)
    assert drift.increase == pytest.approx(0.0253, abs=1e-4)
    assert toy.experts.down_proj.flatten().tolist() == pytest.approx([1.025, 1.025])  # type: ignore[operator]


def test_the_increase_is_taken_over_the_dense_model_where_its_loss_is_given(toy: Toy) -> None:
    drift = bounded_break(toy, 0.04, 0.05, nats, move, before=1.98)  # exp(0.06) - 1 = 6.2 %, exp(0.04) - 1 = 4.1 %
    assert (drift.used, drift.before) == (0.02, pytest.approx(math.exp(1.98)))


@pytest.mark.parametrize("value", [math.inf, math.nan, 1e6])
def test_after_ten_halvings_the_report_says_that_the_bound_does_not_hold(toy: Toy, value: float) -> None:
    readings = iter([2.0, *[value] * 11])
    drift = bounded_break(toy, 1.0, 0.05, lambda _: next(readings), move)
    assert drift.used == 2.0**-10
    assert not drift.within
    assert next(readings, None) is None


def test_putting_clones_back_puts_the_routers_back(build: Any, ids: torch.Tensor) -> None:
    model = cloned(build(num_experts=6))
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    strengths = []

    def apply(one: Any, strength: float) -> None:
        strengths.append(strength)
        assert all(torch.equal(weight, before[name]) for name, weight in one.state_dict().items())
        break_experts(one, "noise", strength, seed=2, spare=2)

    readings = iter([1.0, 2.0, 2.0, 1.0])
    bounded_break(model, 0.4, 0.05, lambda _: next(readings), apply)
    assert strengths == [0.4, 0.2, 0.1]


def test_a_model_is_broken_no_harder_than_the_bound_allows(build: Any, ids: torch.Tensor) -> None:
    model = cloned(build("normalized", options={"initializer_range": 0.3}))

    def measure(one: Any) -> float:
        return float(one(ids, labels=ids).loss.detach())

    def apply(one: Any, strength: float) -> None:
        break_experts(one, "noise", strength, seed=2)

    drift = bounded_break(model, 8.0, 0.05, measure, apply)
    assert isinstance(drift, Drift)
    assert drift.used < 8.0
    assert drift.within
    assert math.log(drift.broken) == pytest.approx(measure(model))
