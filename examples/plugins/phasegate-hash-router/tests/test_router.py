"""The hash: what it decides, what it depends on, and that it is as even as chance."""

from __future__ import annotations

import pytest
import torch
from phasegate import ConfigError
from phasegate.core.model.router import RouterContext
from phasegate.registry.plugins import Plugins

from phasegate_hash_router.options import HashRouterConfig
from phasegate_hash_router.router import HashRouter


def router(*, hidden: int = 16, experts: int = 6, top_k: int = 1, layer: int = 0, **options: int) -> HashRouter:
    context = RouterContext(hidden_size=hidden, num_experts=experts, top_k=top_k, layer=layer)
    made = HashRouter(HashRouterConfig(**options), context=context)
    made.reset(0.02)
    return made


def states(count: int, hidden: int = 16) -> torch.Tensor:
    return torch.randn(count, hidden, generator=torch.Generator().manual_seed(0))


def test_a_token_goes_to_the_experts_that_the_cell_of_its_hidden_state_prefers() -> None:
    made = router(hidden=2, experts=3, top_k=2, bits=2)
    made.planes.copy_(torch.tensor([[1, 1], [1, -1]]))
    made.table.copy_(torch.tensor([[64, 0, 128], [0, 64, 128], [128, 64, 0], [64, 128, 0]]))
    # The sum and the difference of both coordinates: (-3, -1), (1, -3), (-1, 3), (3, 1).
    hidden = torch.tensor([[-2.0, -1.0], [-1.0, 2.0], [1.0, -2.0], [2.0, 1.0]])
    assert made.cells(hidden).tolist() == [0, 1, 2, 3]
    logits, weights, index = made(hidden)
    assert logits.tolist() == [[1.0, 0.0, 2.0], [0.0, 1.0, 2.0], [2.0, 1.0, 0.0], [1.0, 2.0, 0.0]]
    assert index.tolist() == [[2, 0], [2, 1], [0, 1], [1, 0]]
    assert weights.tolist() == [[0.5, 0.5]] * 4


def test_the_length_of_a_hidden_state_does_not_matter() -> None:
    made, hidden = router(), states(50)
    assert torch.equal(made.cells(hidden), made.cells(7.5 * hidden))


def test_the_hash_is_that_of_its_options_and_its_layer_whatever_was_drawn_before() -> None:
    first = router(seed=1, layer=2)
    torch.manual_seed(99)
    again, other_seed, other_layer = router(seed=1, layer=2), router(seed=2, layer=2), router(seed=1, layer=3)
    assert torch.equal(first.table, again.table) and torch.equal(first.planes, again.planes)
    assert not torch.equal(first.table, other_seed.table) and not torch.equal(first.table, other_layer.table)


def test_initialising_leaves_a_loaded_hash_and_the_global_random_state_alone() -> None:
    made, state = router(), torch.get_rng_state()
    made.planes.fill_(1)
    # As transformers marks what a checkpoint has filled.
    made.planes._is_hf_initialized = True  # type: ignore[attr-defined]
    made.reset(0.02)
    assert bool((made.planes == 1).all())
    assert torch.equal(torch.get_rng_state(), state)


def test_cells_prefer_each_expert_about_equally_often_and_never_two_alike() -> None:
    made = router(experts=8, bits=12)
    chosen = torch.bincount(made.table.argmax(-1), minlength=8)
    # 4096 cells: 512 each, with a standard deviation of sqrt(4096 / 8 * 7 / 8) = 21.2.
    assert int((chosen - 512).abs().max()) < 5 * 21.2
    assert all(len(set(row)) == 8 for row in made.table.tolist())


def test_more_than_256_experts_have_preferences_of_their_own() -> None:
    made = router(experts=300, bits=2)
    assert all(len(set(row)) == 300 for row in made.table.tolist())
    assert float(made(states(9))[0].max()) < 4.0


@pytest.mark.parametrize("autocast", [False, True])
def test_equal_hidden_states_are_routed_alike_in_fp32_and_in_bfloat16(autocast: bool) -> None:
    made, hidden = router(bits=12), states(200).bfloat16()
    wanted = made(hidden.float())[2]
    if autocast:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            found = made(hidden)[2]
    else:
        found = made.to(torch.bfloat16)(hidden)[2]
    assert torch.equal(found, wanted)


def test_the_bias_of_loss_free_balancing_decides_which_preference_wins() -> None:
    made, hidden = router(), states(100)
    made.selection_bias[4] = 1.0
    assert made(hidden)[2].unique().tolist() == [4]


def test_nothing_is_learned_and_nothing_can_be() -> None:
    made = router()
    assert list(made.parameters()) == []
    assert not made(states(5).requires_grad_())[1].requires_grad


@pytest.mark.parametrize("options", [{"bits": 0}, {"bits": 17}, {"seed": -1}, {"bit": 8}])
def test_options_that_it_cannot_have_are_refused_by_name(options: dict[str, int]) -> None:
    components = Plugins.load(["phasegate-hash-router"]).components()
    with pytest.raises(ConfigError, match=next(iter(options))):
        components.config("router", "hash", options)
