"""What training changed in the weights, by hand."""

from __future__ import annotations

import copy
import json
import time
from collections.abc import Callable

import pytest
import torch
from phasegate.core.model import changes
from phasegate.core.model.changes import delta_overlap, effective_rank, weight_changes
from torch import nn
from transformers import PreTrainedModel

Build = Callable[..., PreTrainedModel]


def parameter(model: nn.Module, ending: str) -> nn.Parameter:
    return next(weights for name, weights in model.named_parameters() if name.endswith(ending))


def moved(model: PreTrainedModel, ending: str, delta: torch.Tensor) -> PreTrainedModel:
    """A copy of which one parameter is moved."""
    other = copy.deepcopy(model)
    with torch.no_grad():
        parameter(other, ending).add_(delta)
    return other


@pytest.mark.parametrize(
    ("matrix", "rank"),
    [
        (torch.eye(5), 5.0),
        (torch.outer(torch.arange(1.0, 5.0), torch.ones(3)), 1.0),
        (torch.diag(torch.tensor([1.0, 1.0, 0.0, 0.0])), 2.0),
        # Values 3 and 1 are 3/4 and 1/4: entropy 0.5623, exp of it 1.7548.
        (torch.diag(torch.tensor([3.0, 1.0])), 1.7548),
    ],
)
def test_the_effective_rank_is_exp_of_the_entropy_of_singular_values(matrix: torch.Tensor, rank: float) -> None:
    assert float(effective_rank(matrix.double())) == pytest.approx(rank, abs=1e-4)


def test_the_relative_change_is_a_ratio_of_norms(build: Build) -> None:
    model = build()
    after = copy.deepcopy(model)
    with torch.no_grad():
        parameter(after, "layers.1.self_attn.q_proj.weight").mul_(1.5)
    found = weight_changes(model, after)
    rows = {(row["layer"], row["role"]): row for row in found["groups"]}
    before = sum(
        float(p.detach().square().sum())
        for n, p in model.named_parameters()
        if "layers.1.self_attn" in n and "norm" not in n
    )
    moved_by = 0.5 * float(parameter(model, "layers.1.self_attn.q_proj.weight").norm())
    assert rows[1, "attention"]["relative"] == pytest.approx(moved_by / before**0.5, rel=1e-4)
    assert rows[1, "attention"]["share"] == 1.0
    assert rows[0, "attention"]["relative"] == 0.0
    assert (found["changed"], found["tensors"]) == (1, len(list(model.named_parameters())))


def test_the_rank_is_that_of_the_matrices_that_changed(build: Build) -> None:
    model = build()
    direction = torch.outer(torch.ones(32), torch.arange(32.0))
    found = weight_changes(model, moved(model, "layers.0.self_attn.k_proj.weight", 1e-2 * direction))
    (row,) = [row for row in found["roles"] if row["role"] == "attention"]
    assert row["matrices"] == 1
    assert row["effective_rank"] == pytest.approx(1.0, abs=1e-3)
    assert row["rank_share"] == pytest.approx(1 / 32, abs=1e-3)


def test_noise_has_the_rank_share_that_is_shown_beside(build: Build) -> None:
    model = build()
    noise = torch.randn(32, 32, generator=torch.Generator().manual_seed(3))
    found = weight_changes(model, moved(model, "layers.0.self_attn.k_proj.weight", noise))
    (row,) = [row for row in found["roles"] if row["role"] == "attention"]
    assert row["rank_share"] == pytest.approx(row["noise_share"], abs=0.03)
    assert 0.7 < row["noise_share"] < 0.9


def test_experts_are_told_apart(build: Build) -> None:
    """Doubling one expert's down projection changes that expert alone, by ||W|| of it."""
    model = build()
    after = copy.deepcopy(model)
    with torch.no_grad():
        parameter(after, "layers.1.mlp.experts.down_proj")[3].mul_(2.0)
    found = weight_changes(model, after)
    rows = {(row["layer"], row["expert"]): row for row in found["experts"]}
    assert len(rows) == 10
    down = float(parameter(model, "layers.1.mlp.experts.down_proj")[3].square().sum())
    up = float(parameter(model, "layers.1.mlp.experts.gate_up_proj")[3].square().sum())
    assert rows[1, 3]["relative"] == pytest.approx((down / (down + up)) ** 0.5, rel=1e-4)
    assert {row["relative"] for key, row in rows.items() if key != (1, 3)} == {0.0}
    (row,) = [row for row in found["roles"] if row["role"] == "experts"]
    assert row["matrices"] == 1


def test_shares_by_depth_add_up_and_tell_the_last_third(build: Build) -> None:
    model = build(num_hidden_layers=3)
    first = moved(model, "layers.0.self_attn.q_proj.weight", torch.full((32, 32), 1.0))
    both = moved(first, "layers.2.self_attn.q_proj.weight", torch.full((32, 32), 3.0**0.5))
    found = weight_changes(model, both)["depth"]
    assert found == {"first": 0.25, "middle": 0.0, "last": 0.75, "outside": 0.0}


def test_where_an_even_change_would_lie_is_shown_beside(build: Build) -> None:
    found = weight_changes(build(num_hidden_layers=3), build(num_hidden_layers=3, seed=1))["parameters_by_depth"]
    assert found["first"] == found["middle"] == found["last"]
    assert sum(found.values()) == pytest.approx(1.0, abs=1e-5)


def test_two_layers_have_a_first_and_a_last_half(build: Build) -> None:
    model = build()
    found = weight_changes(model, moved(model, "layers.1.self_attn.q_proj.weight", torch.ones(32, 32)))["depth"]
    assert found["last"] == 1.0


def test_nothing_changed_is_said_without_a_division_by_zero(build: Build) -> None:
    model = build()
    found = weight_changes(model, copy.deepcopy(model))
    assert (found["relative"], found["changed"]) == (0.0, 0)
    assert set(found["depth"].values()) == {None}
    assert all(row["effective_rank"] is None and row["share"] is None for row in found["roles"])


class Named(nn.Module):
    """A model of parameters by name."""

    def __init__(self, **shapes: tuple[int, ...]) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        for name, shape in shapes.items():
            self.register_parameter(name, nn.Parameter(torch.randn(shape, generator=generator)))


def test_parameters_that_only_one_model_has_are_named() -> None:
    old, new = Named(same=(2, 2), gone=(3, 3), cut=(4, 2)), Named(same=(2, 2), fresh=(5, 5), cut=(3, 2))
    found = weight_changes(old, new)
    assert (found["added"], found["removed"]) == (["fresh"], ["gone"])
    assert found["reshaped"] == ["cut (4, 2) -> (3, 2)"]
    assert found["tensors"] == 1


def test_a_parameter_with_another_name_and_the_same_bits_is_renamed() -> None:
    old, new = Named(before=(3, 3)), Named(after=(3, 3))
    found = weight_changes(old, new)
    assert found["renamed"] == {"before": "after"}
    assert (found["added"], found["removed"]) == ([], [])


def test_large_matrices_are_counted_instead_of_decomposed(build: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    model = build()
    other = build(seed=1)
    monkeypatch.setattr(changes, "MATRIX_CAP", 32 * 32 * 32 - 1)
    rows = {row["role"]: row for row in weight_changes(model, other)["roles"]}
    assert (rows["attention"]["matrices"], rows["attention"]["unranked"]) == (0, 8)
    assert rows["attention"]["relative"] > 0
    assert rows["router"]["unranked"] == 0


def test_decompositions_stop_when_the_budget_is_used_up(build: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(changes, "TOTAL_CAP", 300 * 32 * 32)  # the embedding and nothing after it
    rows = {row["role"]: row for row in weight_changes(build(), build(seed=1))["roles"]}
    assert rows["embedding"]["matrices"] == 1
    assert (rows["experts"]["matrices"], rows["experts"]["unranked"]) == (0, 20)


def test_the_whole_is_small_strict_json_and_quick(build: Build) -> None:
    model, other = build(num_hidden_layers=3, num_experts=9), build(num_hidden_layers=3, num_experts=9, seed=1)
    started = time.process_time()
    found = weight_changes(model, other)
    assert time.process_time() - started < 1.0
    assert len(json.dumps(found, allow_nan=False)) < 10_000


def test_the_same_direction_again_has_cosine_one_and_angle_zero(build: Build) -> None:
    start = build()
    step = torch.outer(torch.arange(1.0, 33.0), torch.ones(32))
    middle = moved(start, "layers.0.self_attn.q_proj.weight", 1e-2 * step)
    end = moved(middle, "layers.0.self_attn.q_proj.weight", 2e-2 * step)
    (row,) = [row for row in delta_overlap(start, middle, end)["roles"] if row["role"] == "attention"]
    assert row["cosine"] == pytest.approx(1.0, abs=1e-6)
    assert row["smallest_angle"] == pytest.approx(0.0, abs=0.1)


def test_a_change_in_other_directions_has_cosine_zero_and_right_angles(
    build: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first change lives in coordinates 0 to 7 of both sides, the second in 8 to 15."""
    monkeypatch.setattr(changes, "SUBSPACE", 8)
    start, one, other = build(), torch.zeros(32, 32), torch.zeros(32, 32)
    one[:8, :8], other[8:16, 8:16] = torch.eye(8), torch.eye(8)
    middle = moved(start, "layers.0.self_attn.q_proj.weight", one)
    end = moved(middle, "layers.0.self_attn.q_proj.weight", other)
    (row,) = [row for row in delta_overlap(start, middle, end)["roles"] if row["role"] == "attention"]
    assert row["cosine"] == pytest.approx(0.0, abs=1e-6)
    assert (row["outputs"], row["inputs"]) == pytest.approx((0.0, 0.0), abs=1e-6)
    assert row["smallest_angle"] == pytest.approx(90.0, abs=0.1)


def test_random_changes_overlap_as_chance_says(build: Build) -> None:
    """Mean squared cosines of 8 random dimensions of 32 are 8/32."""
    start = build()
    noise = [torch.randn(32, 32, generator=torch.Generator().manual_seed(seed)) for seed in (1, 2)]
    middle = moved(start, "layers.0.self_attn.q_proj.weight", noise[0])
    end = moved(middle, "layers.0.self_attn.q_proj.weight", noise[1])
    (row,) = [row for row in delta_overlap(start, middle, end)["roles"] if row["role"] == "attention"]
    assert row["chance_outputs"] == row["chance_inputs"] == 0.25
    assert row["outputs"] == pytest.approx(0.25, abs=0.08)
