"""Loss-free balancing."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from phasegate.core.training.terms import LossContext, LossSetup
from phasegate.plugins.losses.loss_free_bias import LossFreeBias, LossFreeBiasConfig
from phasegate.registry.errors import ConfigError
from torch import nn

Contexts = Callable[..., LossContext]


def test_busy_experts_go_down_and_idle_ones_up_by_the_rate(
    setup: LossSetup, context: Contexts, router: nn.Module
) -> None:
    loss = LossFreeBias(LossFreeBiasConfig(rate=0.01), setup)
    index = torch.tensor([[0], [0], [0], [1]])  # mean load 1
    value = loss(context(torch.zeros(4, 4), index=index))
    assert value.item() == 0.0
    assert router.get_buffer("selection_bias").tolist() == [0.0] * 4  # not before the step is over
    loss.after_step()
    assert router.get_buffer("selection_bias").tolist() == pytest.approx([-0.01, 0.0, 0.01, 0.01])


def test_micro_batches_move_the_bias_once(setup: LossSetup, context: Contexts, router: nn.Module) -> None:
    loss = LossFreeBias(LossFreeBiasConfig(rate=0.01), setup)
    for expert in (0, 0, 0, 1):
        loss(context(torch.zeros(1, 4), index=torch.tensor([[expert]])))
    loss.after_step()
    assert router.get_buffer("selection_bias").tolist() == pytest.approx([-0.01, 0.0, 0.01, 0.01])


def test_a_step_without_tokens_moves_nothing(setup: LossSetup, router: nn.Module) -> None:
    loss = LossFreeBias(LossFreeBiasConfig(), setup)
    loss.after_step()
    assert router.get_buffer("selection_bias").tolist() == [0.0] * 4


def test_a_model_without_selection_bias_is_refused() -> None:
    setup = LossSetup(model=nn.Linear(2, 2), domains=(), experts=4, top_k=1, layers=1, world_size=1, accumulate=1)
    with pytest.raises(ConfigError, match="selection bias, and Linear has none"):
        LossFreeBias(LossFreeBiasConfig(), setup)
