"""How far apart experts are."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from phasegate.core.model.distances import (
    centred_cosines,
    code_distances,
    expert_distances,
    experts_by_layer,
)
from phasegate.core.model.quantizer import Codes
from phasegate.registry.errors import ConfigError
from torch import nn
from transformers import PreTrainedModel


def test_distances_are_means_over_all_weights_of_all_layers(stacked_experts: Callable[..., nn.Module]) -> None:
    # Layer 0: 4 + 2 weights that differ by 1; layer 1: the same number that differ by 3.
    zeros = torch.zeros(2, 2, 2), torch.zeros(2, 1, 2)
    ones = tuple(part + torch.tensor([0.0, 1.0])[:, None, None] for part in zeros)
    threes = tuple(part + torch.tensor([0.0, 3.0])[:, None, None] for part in zeros)
    found = expert_distances(stacked_experts((ones[0], ones[1]), (threes[0], threes[1])))
    torch.testing.assert_close(found, torch.tensor([[0.0, 2.0], [2.0, 0.0]]))


def test_a_larger_matrix_counts_for_more(stacked_experts: Callable[..., nn.Module]) -> None:
    gate_up, down = torch.zeros(2, 3, 2), torch.zeros(2, 1, 2)
    gate_up[1] = 4.0  # 6 of 8 weights
    assert expert_distances(stacked_experts((gate_up, down)))[0, 1].item() == 3.0


def test_many_weights_are_compared_in_parts(
    stacked_experts: Callable[..., nn.Module], monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = torch.randn(3, 7, 5, generator=torch.Generator().manual_seed(0)), torch.zeros(3, 2, 2)
    whole = expert_distances(stacked_experts(weights))
    monkeypatch.setattr("phasegate.core.model.distances._COLUMNS", 4)
    torch.testing.assert_close(expert_distances(stacked_experts(weights)), whole)


def test_code_distances_count_differing_codes_and_no_scales() -> None:
    trits = torch.tensor([[[1, 0, -1, 0]], [[1, 0, 1, 0]], [[-1, 1, 0, 1]]], dtype=torch.int8)
    codes = Codes(trits=trits, scales=torch.tensor([[1.0], [2.0], [3.0]]).half())
    expected = torch.tensor([[0.0, 0.25, 1.0], [0.25, 0.0, 1.0], [1.0, 1.0, 0.0]])
    torch.testing.assert_close(code_distances({"one": codes}), expected)


def test_code_distances_are_averaged_over_matrices_by_size() -> None:
    same = Codes(trits=torch.zeros(2, 3, 2, dtype=torch.int8), scales=torch.ones(2, 3).half())
    other = Codes(trits=torch.tensor([[[0, 1]], [[1, 0]]], dtype=torch.int8), scales=torch.ones(2, 1).half())
    assert code_distances({"same": same, "other": other})[0, 1].item() == pytest.approx(2 / 8)


def test_centred_cosines_look_from_the_common_ancestor() -> None:
    ancestor = torch.tensor([10.0, 10.0])
    moved = ancestor + torch.tensor([[1.0, 0.0], [0.0, 2.0], [-3.0, 0.0]])
    cosines, known = centred_cosines([moved], [ancestor])
    torch.testing.assert_close(cosines, torch.tensor([[1.0, 0.0, -1.0], [0.0, 1.0, 0.0], [-1.0, 0.0, 1.0]]))
    assert known.all()


def test_parts_of_an_expert_are_one_vector() -> None:
    gate_up, down = torch.tensor([[[3.0]], [[4.0]]]), torch.tensor([[[4.0]], [[3.0]]])
    cosines, _ = centred_cosines([gate_up, down], [torch.zeros(1, 1), torch.zeros(1, 1)])
    assert cosines[0, 1].item() == pytest.approx(24 / 25)  # (3, 4) and (4, 3)


def test_without_an_ancestor_the_mean_is_the_centre() -> None:
    cosines, _ = centred_cosines([torch.tensor([[5.0, 1.0], [5.0, 3.0]])])
    assert cosines[0, 1].item() == pytest.approx(-1.0)


def test_an_expert_that_has_not_moved_has_no_direction_and_no_gradient() -> None:
    weights = torch.tensor([[1.0, 1.0], [2.0, 1.0], [2.0, 2.0]], requires_grad=True)
    cosines, known = centred_cosines([weights], [torch.tensor([1.0, 1.0])])
    cosines.sum().backward()
    assert known.tolist() == [False, True, True]
    assert weights.grad is not None and bool(weights.grad.isfinite().all())
    assert weights.grad[0].abs().sum().item() == 0.0


def test_layers_of_experts_are_found_in_order(build: Callable[..., PreTrainedModel]) -> None:
    layers = experts_by_layer(build())
    assert [name.rpartition(".")[2] for name in layers[0]] == ["gate_up_proj", "down_proj"]
    assert list(layers) == [0, 1]


def test_a_model_without_experts_is_refused() -> None:
    with pytest.raises(ConfigError, match="Linear has no experts to compare"):
        expert_distances(nn.Linear(2, 2))


def test_layers_with_unlike_numbers_of_experts_are_refused(stacked_experts: Callable[..., nn.Module]) -> None:
    two, three = (torch.zeros(2, 1, 1), torch.zeros(2, 1, 1)), (torch.zeros(3, 1, 1), torch.zeros(3, 1, 1))
    with pytest.raises(ConfigError, match="2 experts and some 3"):
        expert_distances(stacked_experts(two, three))
