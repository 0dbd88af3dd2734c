"""Balancing by the variance of the load."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import pytest
import torch
from phasegate.core.training.routing import StepTokens, route, tokens_by_domain
from phasegate.core.training.terms import LossContext, LossSetup
from phasegate.plugins.losses.load_variance import LoadVariance
from phasegate.plugins.losses.options import LoadVarianceConfig
from phasegate.registry.errors import ConfigError

Contexts = Callable[..., LossContext]


def logits_of(probabilities: list[list[float]]) -> torch.Tensor:
    return torch.tensor(probabilities).log().requires_grad_()


def after_one_step(setup: LossSetup, ctx: LossContext) -> LoadVariance:
    loss = LoadVariance(LoadVarianceConfig(), setup)
    loss(ctx)
    loss.after_step()
    return loss


def test_it_is_zero_when_load_is_balanced(setup: LossSetup, context: Contexts) -> None:
    even = torch.eye(4).mul(3.0).requires_grad_()
    loss = after_one_step(setup, context(even))
    value = loss(context(even))
    value.backward()
    assert value.item() == pytest.approx(0.0, abs=1e-6)
    assert even.grad is not None and even.grad.abs().max().item() < 1e-6


def test_it_is_experts_minus_one_at_total_collapse(setup: LossSetup, context: Contexts) -> None:
    collapsed = logits_of([[0.7, 0.1, 0.1, 0.1]] * 5)
    assert after_one_step(setup, context(collapsed))(context(collapsed)).item() == pytest.approx(3.0)


def test_its_value_is_that_of_the_hard_load(setup: LossSetup, context: Contexts) -> None:
    # Three of four tokens go to expert 0: 4 (9/16 + 1/16) - 1 = 1.5, however soft the probabilities are.
    logits = logits_of([[0.4, 0.2, 0.2, 0.2]] * 3 + [[0.2, 0.4, 0.2, 0.2]])
    assert after_one_step(setup, context(logits))(context(logits)).item() == pytest.approx(1.5)


def test_its_gradient_goes_through_the_mean_probability(setup: LossSetup, context: Contexts) -> None:
    logits = logits_of([[0.7, 0.1, 0.1, 0.1]])
    after_one_step(setup, context(logits))(context(logits)).backward()
    assert logits.grad is not None
    # d(2 * 4 * A_0 P_0)/dz = 8 p_0 (delta - p): descending takes tokens off the busy expert.
    torch.testing.assert_close(logits.grad[0], 8 * 0.7 * torch.tensor([0.3, -0.1, -0.1, -0.1]))


def test_at_collapse_it_is_four_orders_above_the_plain_variance() -> None:
    # SPEC E3.23: 128 experts, one of which gets everything.
    load = torch.zeros(128)
    load[0] = 1.0
    switch = 128 * (load * load).sum()
    variance = load.var(correction=0)
    assert (switch / variance).item() == pytest.approx(16_500, rel=0.01)
    assert (128 * load.square().sum() - 1).item() == pytest.approx(128**2 * variance.item(), rel=1e-4)


def test_it_does_not_depend_on_how_the_step_is_split(setup: LossSetup, context: Contexts) -> None:
    random = torch.Generator().manual_seed(3)
    whole = torch.randn(12, 4, generator=random).requires_grad_()
    ends = (0, 2, 12)
    step = tokens_by_domain(torch.zeros(12, dtype=torch.int64), None, 1, 2)

    def value(rows: slice, loss: LoadVariance) -> torch.Tensor:
        ctx = context(whole[rows])
        own = tokens_by_domain(ctx.domain, None, 1, 2)
        routing = route(ctx.records, None, ctx.domain, 2, StepTokens(own=own, step=step))
        return loss(dataclasses.replace(ctx, routing=routing)) * routing.fraction

    gradients = []
    for parts in ([slice(0, 12)], [slice(*ends[:2]), slice(*ends[1:])]):
        loss = after_one_step(setup, context(whole[:5]))
        total = torch.stack([value(rows, loss) for rows in parts]).sum()
        (gradient,) = torch.autograd.grad(total, whole)
        gradients.append((total.item(), gradient))
    assert gradients[0][0] == pytest.approx(gradients[1][0])
    torch.testing.assert_close(gradients[0][1], gradients[1][1])


def test_padding_counts_for_nothing(setup: LossSetup, context: Contexts) -> None:
    logits = logits_of([[0.7, 0.1, 0.1, 0.1], [0.1, 0.7, 0.1, 0.1]])
    junk = torch.cat([logits.detach(), torch.full((1, 4), float("nan"))])
    padded = context(junk, mask=[True, True, False], index=torch.tensor([[0], [1], [2]]))
    plain = after_one_step(setup, context(logits))(context(logits))
    assert after_one_step(setup, padded)(padded).item() == pytest.approx(plain.item())


def test_its_window_survives_a_restart(setup: LossSetup, context: Contexts) -> None:
    logits = logits_of([[0.7, 0.1, 0.1, 0.1]])
    first = after_one_step(setup, context(logits))
    second = LoadVariance(LoadVarianceConfig(), setup)
    second.load_state_dict(first.state_dict())
    assert second(context(logits)).item() == first(context(logits)).item() == pytest.approx(3.0)


def test_a_dense_model_is_refused(setup: LossSetup) -> None:
    with pytest.raises(ConfigError, match="'load-variance' needs a model with experts"):
        LoadVariance(LoadVarianceConfig(), dataclasses.replace(setup, experts=0))
