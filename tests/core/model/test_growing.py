"""Growth: more experts, the same function, and then copies that differ."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from phasegate.core.model.anchors import Guard
from phasegate.core.model.companions import attach, companions_of
from phasegate.core.model.growing import grow
from phasegate.core.model.loading import load_model, save_model
from phasegate.core.model.parameters import expert_parameters, routers_of
from phasegate.core.model.router import RouterBase, RouterContext
from phasegate.registry.components import RouterSpec
from phasegate.registry.current import using
from phasegate.registry.entries import Entry
from phasegate.registry.errors import ConfigError
from phasegate.registry.registry import Registry
from transformers import MixtralConfig, MixtralForCausalLM


class Still(RouterBase):
    """A router that says nothing about growth."""

    def __init__(self, *, context: RouterContext) -> None:
        super().__init__(context)

    def scores(self, hidden: torch.Tensor) -> torch.Tensor:
        return hidden[:, : self.num_experts]

    def init_weights(self, std: float) -> None:
        pass


@pytest.fixture
def eight(build: Any) -> Any:
    """A model of eight experts of which a token passes one."""
    return build("straight-through", num_experts=8, num_experts_per_tok=1)


def logits(model: Any, ids: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = model(ids).logits
    return found


@pytest.mark.parametrize("copies", [2, 3])
@pytest.mark.parametrize("gate", ["normalized", "straight-through"])
def test_copies_alone_do_not_change_what_the_model_computes(
    build: Any, ids: torch.Tensor, gate: str, copies: int
) -> None:
    model = build(gate, num_experts_per_tok=1)
    grown = grow(model, copies, seed=0, strength=0.0)
    assert grown.config.num_experts == 5 * copies
    assert torch.allclose(logits(model, ids), logits(grown, ids), atol=1e-5)


def test_with_a_normalised_gate_twice_the_experts_per_token_compute_the_same(build: Any, ids: torch.Tensor) -> None:
    model = build("normalized", num_experts_per_tok=2)
    grown = grow(model, 2, seed=0, top_k=4, strength=0.0)
    assert torch.allclose(logits(model, ids), logits(grown, ids), atol=1e-5)


def test_a_selection_bias_goes_on_selecting_the_same(build: Any, ids: torch.Tensor) -> None:
    model = build("straight-through", num_experts_per_tok=1)
    for _, _, router in routers_of(model):
        router.selection_bias.copy_(torch.tensor([0.1, -0.05, 0.0, 0.03, -0.08]))
    grown = grow(model, 2, seed=0, strength=0.0)
    assert torch.allclose(logits(model, ids), logits(grown, ids), atol=1e-5)


def test_an_expert_becomes_neighbouring_copies(eight: Any) -> None:
    grown = grow(eight, 2, seed=0, strength=0.0)
    for name in expert_parameters(eight):
        old, new = eight.get_parameter(name), grown.get_parameter(name)
        assert len(new) == 16
        for expert in range(8):
            assert torch.equal(new[2 * expert], old[expert])
            assert torch.equal(new[2 * expert + 1], old[expert])


def test_the_breaker_leaves_the_first_copy_of_every_expert_alone(eight: Any) -> None:
    grown = grow(eight, 2, seed=0)
    for name in expert_parameters(eight):
        old, new = eight.get_parameter(name), grown.get_parameter(name)
        assert torch.equal(new[0::2], old)
        # Gate and up have noise of their own deviation, which is the same here.
        moved = (new[1::2] - old).flatten(1).std(1) / old.flatten(1).std(1)
        assert moved.tolist() == pytest.approx([0.01] * 8, rel=0.15)


def test_eight_experts_become_sixteen_and_thirty_two_with_little_drift(eight: Any, ids: torch.Tensor) -> None:
    def nats(model: Any) -> float:
        with torch.no_grad():
            return float(model(ids, labels=ids).loss)

    sixteen = grow(eight, seed=1)
    more = grow(sixteen, seed=2)
    assert [model.config.num_experts for model in (sixteen, more)] == [16, 32]
    assert {tuple(router.weight.shape) for _, _, router in routers_of(more)} == {(32, 32)}
    assert len(torch.unique(more.model.layers[0].mlp.experts.down_proj.flatten(1), dim=0)) == 32
    # Noise of 1 % twice, on a model whose nats are near ln 300 = 5.7.
    assert abs(nats(more) - nats(eight)) < 0.01
    assert not torch.equal(logits(more, ids), logits(eight, ids))


def test_both_copies_of_an_expert_get_tokens(eight: Any) -> None:
    hidden = torch.randn(4000, 32, generator=torch.Generator().manual_seed(3))
    counts = {}
    for strength in (0.0, 0.01):
        router = routers_of(grow(eight, 2, seed=0, strength=strength))[0][2]
        counts[strength] = torch.bincount(router(hidden)[2].flatten(), minlength=16).view(8, 2)
    shares = counts[0.01].amin(1) / counts[0.01].sum(1)
    assert shares.min() > 0.2  # half each, but for chance in the noise
    # And an expert keeps its tokens: nearly all of them go to one of its copies.
    assert (counts[0.01].sum(1) - counts[0.0].sum(1)).abs().sum() < 200


def test_a_model_can_grow_again_before_any_tie_is_broken(eight: Any, ids: torch.Tensor) -> None:
    twice = grow(grow(eight, 2, seed=0, strength=0.0), 2, seed=0, strength=0.0)
    assert torch.allclose(logits(twice, ids), logits(eight, ids), atol=1e-5)


def test_dropping_units_of_the_copies_is_possible(eight: Any) -> None:
    grown = grow(eight, 2, seed=0, kind="drop", strength=0.5)
    down, old = grown.model.layers[0].mlp.experts.down_proj, eight.model.layers[0].mlp.experts.down_proj
    assert (down[1::2] != old).all(1).sum(1).tolist() == [8] * 8  # of 16 units
    assert torch.equal(down[0::2], old)


@pytest.mark.parametrize("moved", [0.0, 0.1])
@pytest.mark.parametrize("seed", range(4))
def test_a_torus_of_eight_experts_grows_to_sixteen_and_thirty_two(
    context: Any, registry: Registry, seed: int, moved: float
) -> None:
    """Also where positions have left the lattice, as jitter and training have them do: SPEC 2A.9 allows a drift."""
    ready = context("torus", {"gate": "straight-through"}, num_experts=8, num_experts_per_tok=1)
    model = registry.build("model", "moe", {}, context=ready).build(seed)
    first: Any = routers_of(model)[0][2]
    with torch.no_grad():
        first.positions += moved * torch.randn(8, 3, generator=torch.Generator().manual_seed(seed)) / 3**0.5
    hidden = torch.randn(2000, 32, generator=torch.Generator().manual_seed(seed + 1))
    before = first(hidden)[2]
    for experts in (16, 32):
        model = grow(model, 2, seed=seed, strength=0.0)
        assert model.config.num_experts == experts
    agreed = (routers_of(model)[0][2](hidden)[2] // 4 == before).float().mean()
    assert agreed > 0.6  # most tokens still reach a copy of their expert


@pytest.mark.parametrize("top_k", [0, -1, 100])
def test_more_experts_per_token_than_there_are_is_refused(eight: Any, top_k: int) -> None:
    with pytest.raises(ConfigError, match=f"A token cannot pass {top_k} of 16 experts; choose top_k from 1 to 16"):
        grow(eight, 2, seed=0, top_k=top_k)


def test_two_copies_of_the_only_expert_of_a_token_count_as_it_did(build: Any, ids: torch.Tensor) -> None:
    model = build("normalized", num_experts_per_tok=1)
    grown = grow(model, 2, seed=0, top_k=2, strength=0.0)
    assert torch.allclose(logits(model, ids), logits(grown, ids), atol=1e-5)


@pytest.mark.parametrize(("before", "after"), [(2, 1), (2, 3), (1, 3)])
def test_a_number_of_experts_per_token_that_splits_copies_is_refused(build: Any, before: int, after: int) -> None:
    with pytest.raises(ConfigError, match=f"gate normalized and top_k {2 * before}"):
        grow(build("normalized", num_experts_per_tok=before), 2, seed=0, top_k=after)


def test_a_torus_whose_gate_is_the_probability_is_refused(context: Any, registry: Registry) -> None:
    ready = context("torus", {"gate": "softmax"}, num_experts=8, num_experts_per_tok=1)
    with pytest.raises(ConfigError, match="gate straight-through and one expert per token"):
        grow(registry.build("model", "moe", {}, context=ready).build(0), 2, seed=0)


def test_a_gate_that_is_the_probability_is_refused(build: Any) -> None:
    with pytest.raises(ConfigError, match="gate straight-through and one expert per token"):
        grow(build("softmax", num_experts_per_tok=1), 2, seed=0)


@pytest.mark.parametrize("gate", ["normalized", "straight-through"])
def test_two_experts_per_token_would_be_copies_of_one_and_are_refused(build: Any, gate: str) -> None:
    with pytest.raises(ConfigError, match="gate normalized and top_k 4"):
        grow(build(gate, num_experts_per_tok=2), 2, seed=0)


def test_a_router_that_cannot_be_extended_is_refused(build: Any, context: Any, registry: Registry) -> None:
    entry = Entry(dist="other", version="1", component=RouterSpec(name="still", target=Still))
    with_still = Registry((*registry, entry))
    ready = context(router="other:still", registry=with_still, num_experts_per_tok=1)
    model = with_still.build("model", "moe", {}, context=ready).build(0)
    with using(with_still), pytest.raises(ConfigError, match="Still cannot be extended"):
        grow(model, 2, seed=0)


def test_a_stock_model_is_refused() -> None:
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    stock = MixtralForCausalLM(MixtralConfig(**sizes, num_key_value_heads=2, vocab_size=30, num_local_experts=2))
    with pytest.raises(ConfigError, match="MixtralForCausalLM cannot grow"):
        grow(stock, 2, seed=0)


def test_one_copy_is_refused(eight: Any) -> None:
    with pytest.raises(ConfigError, match="copies is 1"):
        grow(eight, 1, seed=0)


def test_equal_seeds_grow_equally_and_the_global_generator_stays(eight: Any) -> None:
    state = torch.get_rng_state()
    one, same, other = (grow(eight, 2, seed=seed).state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert not all(torch.equal(one[name], other[name]) for name in one)
    assert torch.equal(state, torch.get_rng_state())


def test_a_model_in_half_precision_and_in_training_grows_too(eight: Any) -> None:
    grown = grow(eight.to(torch.bfloat16).train(), 2, seed=0)
    assert {parameter.dtype for parameter in grown.parameters()} == {torch.float32}
    assert grown.training and eight.training


def test_the_grown_model_is_read_again_as_it_was_saved_with_what_travels_with_it(
    eight: Any,
    ids: torch.Tensor,
    tokenizer: Any,
    with_plane: Registry,
    make_guard: Callable[..., Guard],
    tmp_path: Path,
) -> None:
    attach(eight, "anchor", make_guard(eight))
    grown = grow(eight, 2, seed=0)
    save_model(grown, tokenizer, tmp_path)
    read = load_model(tmp_path, with_plane).eval()
    assert torch.equal(logits(read, ids), logits(grown, ids))
    assert set(companions_of(read)) == {"anchor"}
