"""What tests of several floors are made of."""

from __future__ import annotations

import os
from collections.abc import Callable

os.environ["HF_HUB_OFFLINE"] = "1"

import pytest
import torch
from torch import nn


class Experts(nn.Module):
    """Stacked weights under the names that the platform knows."""

    def __init__(self, gate_up: torch.Tensor, down: torch.Tensor) -> None:
        super().__init__()
        self.num_experts = len(gate_up)
        self.gate_up_proj, self.down_proj = nn.Parameter(gate_up), nn.Parameter(down)


@pytest.fixture
def stacked_experts() -> Callable[..., nn.Module]:
    """A model of nothing but stacked experts: ``stacked_experts((gate_up, down), ...)``, shape (E, R, C) each."""

    def make(*layers: tuple[torch.Tensor, torch.Tensor]) -> nn.Module:
        model = nn.Module()
        model.layers = nn.ModuleList()
        for gate_up, down in layers:
            layer = nn.Module()
            layer.experts = Experts(gate_up, down)
            model.layers.append(layer)
        return model

    return make
