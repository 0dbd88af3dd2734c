"""Anchors and guards: thresholds by hand, vetoes that fail closed, nothing restored but what was saved."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from phasegate.core.model.anchors import Guard, kinds_with_enough, needed_for, rate_of, threshold_for
from phasegate.core.model.companions import attach
from phasegate.core.model.states import answer_states, final_states
from phasegate.registry.errors import DataError, StoreError
from phasegate.registry.registry import Registry


def test_the_threshold_is_the_conformal_quantile() -> None:
    scores = torch.arange(1.0, 20.0)  # 1 … 19
    assert threshold_for(scores, 0.1) == 18.0  # ceil(20 x 0.9) = 18th smallest
    assert threshold_for(scores.flip(0), 0.05) == 19.0


def test_where_there_is_room_the_threshold_lies_halfway_to_the_other_side() -> None:
    benign = torch.arange(1.0, 20.0)  # the edge is 18
    harmful = torch.arange(30.0, 50.0)  # floor(21 x 0.1) = 2nd smallest: all but a tenth exceed 31
    assert threshold_for(benign, 0.1, harmful=harmful) == (18.0 + 31.0) / 2
    assert threshold_for(benign, 0.1, harmful=harmful - 20.0) == 18.0  # no room: the promise comes first
    assert threshold_for(benign, 0.1, harmful=harmful[:3]) == (18.0 + 30.0) / 2
    assert threshold_for(benign, 0.1, harmful=torch.zeros(0)) == 18.0


def test_too_few_prompts_promise_nothing() -> None:
    with pytest.raises(DataError, match=r"18 benign .* at most 5\.00% are vetoed; 19 can"):
        threshold_for(torch.zeros(18), 0.05)
    assert (needed_for(0.05), needed_for(0.02), needed_for(0.01)) == (19, 49, 99)


def test_no_kind_is_vetoed_more_than_promised_within_the_share_of_all() -> None:
    common, rare = torch.arange(1.0, 91.0), torch.arange(101.0, 110.0)  # 90 of one kind, 9 of another, all higher
    kinds = ["common"] * 90 + ["rare"] * 9
    scores = torch.cat([common, rare])
    assert threshold_for(scores, 0.1) == 90.0  # ceil(100 x 0.9): every rare prompt would be vetoed
    assert threshold_for(scores, 0.1, kinds) == 109.0  # ceil(10 x 0.9) = 9th of the rare ones


def test_a_kind_with_too_few_prompts_gets_no_promise_of_its_own() -> None:
    assert kinds_with_enough(["a"] * 9 + ["b"] * 8, 0.1) == ["a"]


def test_the_promise_holds_over_many_draws() -> None:
    stream = torch.Generator().manual_seed(0)
    vetoed = []
    for _ in range(400):
        scores = torch.randn(60, generator=stream)
        vetoed.append((torch.randn(50, generator=stream) > threshold_for(scores, 0.05)).float().mean())
    assert 0.03 < float(torch.stack(vetoed).mean()) < 0.05 + 0.005


def test_a_rate_comes_with_wilson_bounds() -> None:
    rate = rate_of([True, False, False, False])
    assert (rate.value, rate.n) == (0.25, 4)
    # z² = 2.7055: (0.25 + z²/8) / (1 + z²/4) = 0.3509, z sqrt(0.1875/4 + z²/64) / (1 + z²/4) = 0.2930
    assert rate.low == pytest.approx(0.0579, abs=1e-4)
    assert rate.high == pytest.approx(0.6438, abs=1e-4)


def test_a_score_above_zero_is_a_veto(build: Any, make_guard: Callable[..., Guard]) -> None:
    guard = make_guard(build(), at=1.0)
    hidden = torch.tensor([[0.5, 9.0], [1.0, 9.0], [1.5, 9.0]])
    assert guard.vetoes(hidden).tolist() == [False, False, True]


@pytest.mark.parametrize("broken", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("place", [0, 1])
def test_a_state_that_is_no_finite_number_is_a_veto(
    build: Any, make_guard: Callable[..., Guard], broken: float, place: int
) -> None:
    hidden = torch.zeros(2, 4)
    hidden[1, place] = broken
    assert make_guard(build()).vetoes(hidden).tolist() == [False, True]


def test_an_anchor_that_scores_nan_vetoes(build: Any, make_guard: Callable[..., Guard]) -> None:
    guard = make_guard(build())
    guard.anchor.weight = torch.tensor([float("nan")])  # type: ignore[attr-defined]
    assert guard.vetoes(torch.ones(3, 4)).all()


def test_scores_of_a_wrong_shape_are_an_error_and_no_answer(build: Any, make_guard: Callable[..., Guard]) -> None:
    guard = make_guard(build())
    guard.anchor.score = lambda hidden: torch.zeros(1)  # type: ignore[method-assign]
    with pytest.raises(StoreError, match=r"elsewhere:plane gave scores of shape \(1,\) for states of shape \(3, 4\)"):
        guard.vetoes(torch.ones(3, 4))


@pytest.mark.parametrize(
    ("every", "vetoed"), [(0, [False, False, False]), (2, [True, False, True]), (3, [False, True, True])]
)
def test_answers_are_looked_at_at_every_so_manieth_token_and_at_their_end(
    build: Any, make_guard: Callable[..., Guard], every: int, vetoed: list[bool]
) -> None:
    hidden = torch.zeros(3, 6, 4)
    hidden[0, 1, 0] = hidden[1, 2, 0] = hidden[2, 4, 0] = 2.0  # token 2, token 3, token 5: the last of its answer
    spoken = torch.tensor([[1, 1, 1, 1, 1, 0], [1, 1, 1, 1, 1, 1], [1, 1, 1, 1, 1, 0]]).bool()
    assert make_guard(build(), at=1.0, every=every).vetoes_answers(hidden, spoken).tolist() == vetoed


def test_inside_an_answer_the_limit_is_its_own(build: Any, make_guard: Callable[..., Guard]) -> None:
    hidden, spoken = torch.full((1, 1, 4), 2.0), torch.ones(1, 1, dtype=torch.bool)
    assert make_guard(build(), at=1.0, every=1, running=0.5).vetoes_answers(hidden, spoken).tolist() == [True]
    assert make_guard(build(), at=1.0, every=1, running=1.5).vetoes_answers(hidden, spoken).tolist() == [False]


def test_what_lies_behind_an_answer_is_not_looked_at(build: Any, make_guard: Callable[..., Guard]) -> None:
    hidden = torch.zeros(1, 4, 4)
    hidden[0, 3] = float("nan")
    guard = make_guard(build(), every=1)
    assert guard.vetoes_answers(hidden, torch.tensor([[True, True, True, False]])).tolist() == [False]
    assert guard.vetoes_answers(hidden, torch.tensor([[True, True, True, True]])).tolist() == [True]


def test_a_guard_is_restored_as_it_was(build: Any, make_guard: Callable[..., Guard], with_plane: Registry) -> None:
    model = build()
    guard = make_guard(model, at=0.3, every=4, running=0.7, rates={"detected": rate_of([True, False])})
    facts, tensors = guard.save()
    again = Guard.restore(facts, tensors, model, with_plane)
    assert again.save()[0] == facts
    assert torch.equal(again.anchor.score(torch.eye(4)), guard.anchor.score(torch.eye(4)))
    assert not again.stale(model)


def test_a_guard_is_stale_once_the_weights_change(build: Any, make_guard: Callable[..., Guard]) -> None:
    model = build()
    guard = make_guard(model)
    with torch.no_grad():
        model.model.norm.weight[0] += 1e-3
    assert guard.stale(model)


def test_an_anchor_whose_component_is_not_there_is_an_error(
    build: Any, make_guard: Callable[..., Guard], registry: Registry
) -> None:
    model = build()
    with pytest.raises(StoreError, match=r"anchor 'elsewhere:plane' cannot be put in place .*without it the model is"):
        Guard.restore(*make_guard(model).save(), model, registry)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"anchor": "nobody:nothing"}, "Unknown anchor"),
        ({"anchor": None}, "Unknown anchor"),
        ({"options": {"at": "high"}}, "cannot be put in place"),
        ({"options": {"where": 1}}, "has no option 'where'"),
        ({"revision": 1}, "captured by revision 1 of it and revision 2 is installed"),
        ({"captured": {}}, "is damaged"),
        ({"captured": {"seen": 4}}, "it has seen something else"),
        ({"rates": {"detected": {"value": 1.0}}}, "is damaged"),
        ({"running": "high"}, "is damaged"),
        ({"running": float("nan")}, "not finite"),
    ],
)
def test_a_guard_that_was_changed_is_not_restored(
    build: Any, make_guard: Callable[..., Guard], with_plane: Registry, change: dict[str, Any], told: str
) -> None:
    model = build()
    facts, tensors = make_guard(model).save()
    with pytest.raises(StoreError, match=told):
        Guard.restore({**facts, **change}, tensors, model, with_plane)


@pytest.mark.parametrize("key", ["anchor", "captured", "digest", "every", "options", "refusal", "revision", "running"])
def test_a_guard_that_lacks_something_is_not_restored(
    build: Any, make_guard: Callable[..., Guard], with_plane: Registry, key: str
) -> None:
    model = build()
    facts, tensors = make_guard(model).save()
    with pytest.raises(StoreError):
        Guard.restore({name: value for name, value in facts.items() if name != key}, tensors, model, with_plane)


@pytest.mark.parametrize("weight", [torch.tensor([float("nan")]), torch.tensor([float("inf")])])
def test_an_anchor_with_numbers_that_are_none_is_not_restored(
    build: Any, make_guard: Callable[..., Guard], with_plane: Registry, weight: torch.Tensor
) -> None:
    model = build()
    facts, _ = make_guard(model).save()
    with pytest.raises(StoreError, match="not finite"):
        Guard.restore(facts, {"weight": weight}, model, with_plane)


def test_final_states_are_those_of_each_row_alone(build: Any) -> None:
    model = build()
    rows = [[7, 8, 9, 10, 11], [12], [13, 14, 15]]
    with torch.no_grad():
        alone = torch.stack([model.model(input_ids=torch.tensor([row])).last_hidden_state[0, -1] for row in rows])
        torch.testing.assert_close(final_states(model, rows, 2), alone, atol=1e-5, rtol=0)


def test_states_of_answers_come_with_their_tokens_marked(build: Any) -> None:
    rows, starts = [[7, 8, 9, 10], [11, 12]], [2, 1]
    found = {}
    with torch.no_grad():
        for places, states, spoken in answer_states(build(), rows, starts, 1):
            for place, row, mask in zip(places, states, spoken, strict=True):
                found[place] = (tuple(row.shape), mask.tolist())
    assert found == {0: ((4, 32), [False, False, True, True]), 1: ((2, 32), [False, True])}


def test_a_guard_does_not_hold_its_model(build: Any, make_guard: Callable[..., Guard]) -> None:
    import copy

    model = build()
    attach(model, "anchor", make_guard(model))
    twin = copy.deepcopy(model)  # as a dpo step does for its reference
    assert twin.num_parameters() == model.num_parameters()
    assert replace(make_guard(model), every=3).every == 3
