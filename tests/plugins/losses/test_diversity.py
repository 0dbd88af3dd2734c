"""Keeping what experts have learnt apart."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
import torch
from phasegate.core.config.schema import Ref
from phasegate.core.model.builder import ModelContext
from phasegate.core.model.companions import attach
from phasegate.core.model.distances import ancestors, centred_cosines, experts_by_layer
from phasegate.core.model.origin import Origin
from phasegate.core.training.terms import LossContext, LossSetup
from phasegate.plugins.losses.diversity import Diversity
from phasegate.plugins.losses.options import DiversityConfig
from phasegate.registry.errors import ConfigError
from phasegate.registry.plugins import Plugins
from torch import nn
from transformers import PreTrainedModel

MEAN = DiversityConfig(centre="mean")


def setup_of(model: nn.Module, experts: int) -> LossSetup:
    return LossSetup(model=model, domains=(), experts=experts, top_k=1, layers=1, world_size=1, accumulate=1)


def at(step: int = 0) -> LossContext:
    nothing = torch.zeros(0, dtype=torch.int64)
    return LossContext(
        model=nn.Module(), records=[], mask=nothing.bool(), domain=nothing, domains=(), step=step, progress=0.0
    )


def mean_cosine(model: nn.Module, layer: int = 0, origin: Origin | None = None) -> float:
    names = experts_by_layer(model)[layer]
    middles = None if origin is None else ancestors(origin, layer, names)
    with torch.no_grad():
        cosines, _ = centred_cosines([model.get_parameter(name) for name in names], middles)
    experts = len(cosines)
    return float(cosines.sum() - cosines.trace()) / (experts * (experts - 1))


def with_origin(model: Any, **weights: torch.Tensor) -> Origin:
    """Let a bare model know what its experts of layer 0 were cloned from."""
    origin = Origin(gate_up={0: weights["gate_up"]}, down={0: weights["down"]})
    model.config = type("Config", (), {})()
    attach(model, "origin", origin)
    return origin


ZEROS = Origin(gate_up={0: torch.zeros(24, 8)}, down={0: torch.zeros(8, 12)})


@pytest.fixture
def moved_together(stacked_experts: Callable[..., nn.Module]) -> Callable[..., nn.Module]:
    """Experts cloned from zeros that have moved with a common part: cosines near common^2 / (common^2 + 1)."""

    def make(experts: int = 8, common: float = 0.7) -> nn.Module:
        random = torch.Generator().manual_seed(0)
        shared, own = torch.randn(1, 24, 8, generator=random), torch.randn(experts, 24, 8, generator=random)
        down = torch.randn(experts, 8, 12, generator=random)
        down[:] = common * torch.randn(1, 8, 12, generator=random) + down
        model = stacked_experts((common * shared + own, down))
        with_origin(model, gate_up=torch.zeros(24, 8), down=torch.zeros(8, 12))
        return model

    return make


@pytest.fixture
def tiny() -> Callable[..., PreTrainedModel]:
    """The platform's own MoE of 2 layers and 4 experts."""

    def make(router: str = "linear", **options: Any) -> PreTrainedModel:
        registry = Plugins.load(()).components()
        derived = {
            "hidden_size": 16,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "head_dim": 8,
            "moe_intermediate_size": 8,
            "num_experts": 4,
            "num_experts_per_tok": 1,
            "initializer_range": 0.2,
        }
        ref = Ref(use=router, options=options)
        context = ModelContext(registry=registry, router=ref, derived=derived, vocab_size=48, sequence_length=16)
        model: PreTrainedModel = registry.build("model", "moe", {}, context=context).build(seed=0)
        return model

    return make


def test_its_value_is_the_mean_positive_cosine_over_pairs_and_layers(stacked_experts: Callable[..., nn.Module]) -> None:
    # From their mean (0, 0): layer 0 has cosines 1, -1, -1 and layer 1 has 0, -1/sqrt 2, -1/sqrt 2.
    first = torch.tensor([[1.0], [1.0], [-2.0]])[..., None] * torch.ones(1, 1, 2)
    second = torch.tensor([[[1.0, 0.0]], [[0.0, 1.0]], [[-1.0, -1.0]]])
    none = torch.zeros(3, 1, 1)
    value = Diversity(MEAN, setup_of(stacked_experts((first, none), (second, none)), 3))(at())
    assert value.item() == pytest.approx((1 / 3 + 0.0) / 2, abs=1e-6)


def test_its_gradient_is_that_of_the_formula(moved_together: Callable[..., nn.Module]) -> None:
    model = moved_together()
    Diversity(DiversityConfig(), setup_of(model, 8))(at()).backward()
    flat = torch.cat([p.detach().flatten(1) for p in model.parameters()], dim=1).requires_grad_()
    unit = torch.nn.functional.normalize(flat, dim=1)
    (unit @ unit.T).relu().triu(1).sum().div(28).backward()
    assert flat.grad is not None
    found = torch.cat([p.grad.flatten(1) for p in model.parameters() if p.grad is not None], dim=1)
    torch.testing.assert_close(found, flat.grad, atol=1e-7, rtol=1e-4)


def train(model: nn.Module, sign: float, config: DiversityConfig | None = None) -> float:
    loss = Diversity(config or DiversityConfig(), setup_of(model, 8))
    optimizer = torch.optim.SGD(model.parameters(), lr=200.0)
    for step in range(60):
        optimizer.zero_grad()
        (sign * loss(at(step))).backward()
        optimizer.step()
    return mean_cosine(model, origin=ZEROS)


def test_descending_it_takes_experts_apart_and_the_originals_sign_together(
    moved_together: Callable[..., nn.Module],
) -> None:
    """SPEC E3.1: 0.36 -> 0.89 with the original's sign, 0.30 -> -0.09 with the corrected one."""
    start = mean_cosine(
        moved_together(), origin=with_origin(moved_together(), gate_up=torch.zeros(24, 8), down=torch.zeros(8, 12))
    )
    assert 0.2 < start < 0.5
    assert train(moved_together(), sign=1.0) < 0.02
    assert train(moved_together(), sign=-1.0) > 0.85


def broken(model: PreTrainedModel) -> Origin:
    """Clones whose symmetry was broken by a small change that they have in common and one of their own."""
    random = torch.Generator().manual_seed(1)
    parts: dict[str, dict[int, torch.Tensor]] = {"gate_up_proj": {}, "down_proj": {}}
    with torch.no_grad():
        for layer, names in experts_by_layer(model).items():
            for name in names:
                weight = model.get_parameter(name)
                parts[name.rpartition(".")[2]][layer] = weight[0].clone()
                common = torch.randn(weight.shape[1:], generator=random)
                weight.copy_(weight[0] + 0.02 * (0.7 * common + torch.randn(weight.shape, generator=random)))
    origin = Origin(gate_up=parts["gate_up_proj"], down=parts["down_proj"])
    attach(model, "origin", origin)
    return origin


def test_the_sign_decides_also_while_a_model_learns_tokens(tiny: Callable[..., PreTrainedModel]) -> None:
    tokens = torch.randint(48, (8, 16), generator=torch.Generator().manual_seed(2))
    found = {}
    for sign in (1.0, 0.0, -1.0):
        model = tiny()
        origin = broken(model)
        loss = Diversity(DiversityConfig(), setup_of(model, 4))
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
        for step in range(40):
            optimizer.zero_grad()
            task = model(input_ids=tokens, labels=tokens, use_cache=False).loss
            (task + sign * loss(at(step))).backward()
            optimizer.step()
        found[sign] = sum(mean_cosine(model, layer, origin) for layer in (0, 1)) / 2
    assert found[1.0] < found[0.0] - 0.05
    assert found[-1.0] > found[0.0] + 0.2


def test_identical_clones_get_no_gradient_from_it(stacked_experts: Callable[..., nn.Module]) -> None:
    """SPEC E3.2: something else has to break their symmetry."""
    weights = torch.randn(1, 24, 8, generator=torch.Generator().manual_seed(0)), torch.ones(1, 8, 12)
    model = stacked_experts((weights[0].repeat(8, 1, 1), weights[1].repeat(8, 1, 1)))
    with_origin(model, gate_up=weights[0][0], down=weights[1][0])
    value = Diversity(DiversityConfig(), setup_of(model, 8))(at())
    value.backward()
    assert value.item() == 0.0
    assert all(p.grad is not None and p.grad.abs().max() == 0 for p in model.parameters())


def test_only_experts_get_a_gradient(tiny: Callable[..., PreTrainedModel]) -> None:
    model = tiny()
    broken(model)
    Diversity(DiversityConfig(), setup_of(model, 4))(at()).backward()
    names = {name for names in experts_by_layer(model).values() for name in names}
    assert {name for name, p in model.named_parameters() if p.grad is not None} == names


def test_experts_that_have_not_moved_are_left_out(stacked_experts: Callable[..., nn.Module]) -> None:
    weights = torch.tensor([[[1.0, 0.0]], [[1.0, 1.0]], [[0.0, 0.0]]])
    model = stacked_experts((weights, torch.zeros(3, 1, 1)))
    with_origin(model, gate_up=torch.zeros(1, 2), down=torch.zeros(1, 1))
    assert Diversity(DiversityConfig(), setup_of(model, 3))(at()).item() == pytest.approx(0.5**0.5)  # one pair of three


def test_neighbours_may_stay_alike(tiny: Callable[..., PreTrainedModel]) -> None:
    # On a 2 x 2 x 1 grid experts 0 and 3, and 1 and 2, are no neighbours.
    model = tiny("torus", grid=[2, 2, 1])
    origin = broken(model)
    value = Diversity(DiversityConfig(pairs="non-neighbours"), setup_of(model, 4))(at())
    expected = []
    for layer, names in experts_by_layer(model).items():
        cosines, _ = centred_cosines([model.get_parameter(n) for n in names], ancestors(origin, layer, names))
        expected.append((cosines[0, 3] + cosines[1, 2]) / 2)
    assert all(part > 0 for part in expected)
    assert value.item() == pytest.approx(sum(expected).item() / 2, rel=1e-5)  # type: ignore[union-attr]


def test_a_sketch_is_near_the_exact_value_and_new_in_every_step(moved_together: Callable[..., nn.Module]) -> None:
    model = moved_together()
    exact = Diversity(DiversityConfig(), setup_of(model, 8))(at()).item()
    loss = Diversity(DiversityConfig(sketch=128), setup_of(model, 8))
    values = [loss(at(step)).item() for step in range(20)]
    assert sum(values) / 20 == pytest.approx(exact, abs=0.03)
    assert len(set(values)) == 20
    assert loss(at(3)).item() == values[3]


def test_a_sketch_takes_experts_apart_and_not_only_their_sketches(moved_together: Callable[..., nn.Module]) -> None:
    assert train(moved_together(), sign=1.0, config=DiversityConfig(sketch=64)) < 0.1


def test_a_model_of_unknown_origin_is_refused_unless_the_mean_is_the_centre(
    stacked_experts: Callable[..., nn.Module],
) -> None:
    model = stacked_experts((torch.randn(4, 2, 2), torch.randn(4, 2, 2)))
    with pytest.raises(ConfigError, match="centre: mean, or upcycle"):
        Diversity(DiversityConfig(), setup_of(model, 4))
    assert Diversity(MEAN, setup_of(model, 4))(at()).isfinite()


def test_a_router_without_neighbours_is_refused(tiny: Callable[..., PreTrainedModel]) -> None:
    config = DiversityConfig(pairs="non-neighbours", centre="mean")
    with pytest.raises(ConfigError, match="LinearRouter knows none; set router: torus"):
        Diversity(config, setup_of(tiny(), 4))


def test_a_dense_model_is_refused() -> None:
    with pytest.raises(ConfigError, match="'diversity' needs a model with experts"):
        Diversity(MEAN, dataclasses.replace(setup_of(nn.Module(), 0)))
