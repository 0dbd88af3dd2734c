"""The z-loss."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from phasegate.core.training.terms import LossContext, LossSetup
from phasegate.plugins.losses.z import RouterZ, RouterZConfig

Contexts = Callable[..., LossContext]


def test_it_is_the_mean_square_of_the_log_partition(setup: LossSetup, context: Contexts) -> None:
    loss = RouterZ(RouterZConfig(), setup)
    logits = torch.tensor([[0.0] * 4, [1.0] * 4])
    expected = (math.log(4) ** 2 + (1 + math.log(4)) ** 2) / 2
    assert loss(context(logits)).item() == pytest.approx(expected)


def test_it_is_taken_in_fp32_whatever_the_logits(setup: LossSetup, context: Contexts) -> None:
    loss = RouterZ(RouterZConfig(), setup)
    value = loss(context(torch.full((2, 4), 3.0, dtype=torch.bfloat16)))
    assert value.dtype == torch.float32
    assert value.item() == pytest.approx((3 + math.log(4)) ** 2)


def test_padding_is_left_out(setup: LossSetup, context: Contexts) -> None:
    loss = RouterZ(RouterZConfig(), setup)
    logits = torch.tensor([[0.0] * 4, [50.0] * 4])
    assert loss(context(logits, mask=[True, False])).item() == pytest.approx(math.log(4) ** 2)


def test_its_gradient_shrinks_the_logits(setup: LossSetup, context: Contexts) -> None:
    logits = torch.full((1, 4), 2.0, requires_grad=True)
    RouterZ(RouterZConfig(), setup)(context(logits)).backward()
    assert logits.grad is not None and (logits.grad > 0).all()
