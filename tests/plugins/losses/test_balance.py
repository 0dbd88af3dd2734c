"""The balance term."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from phasegate.core.training.terms import LossContext, LossSetup
from phasegate.plugins.losses.balance import Balance, BalanceConfig
from phasegate.registry.errors import ConfigError

Contexts = Callable[..., LossContext]


def _logits(probabilities: list[list[float]]) -> torch.Tensor:
    return torch.tensor(probabilities).log().requires_grad_()


def test_it_is_one_when_load_is_balanced(setup: LossSetup, context: Contexts) -> None:
    loss = Balance(BalanceConfig(), setup)
    even = torch.eye(4).mul(3.0).requires_grad_()
    for _ in range(3):
        value = loss(context(even))
        loss.after_step()
    assert value.item() == pytest.approx(1.0)


@pytest.mark.parametrize("top_k", [1, 2])
def test_it_is_one_when_balanced_for_any_top_k(setup: LossSetup, context: Contexts, top_k: int) -> None:
    loss = Balance(BalanceConfig(), setup)
    ring = torch.stack([torch.tensor([2.0, 1.0, 0.0, 0.0]).roll(n) for n in range(4)])
    loss(context(ring, top_k=top_k))
    loss.after_step()
    assert loss(context(ring, top_k=top_k)).item() == pytest.approx(1.0)


def test_its_value_is_experts_times_load_times_probability(setup: LossSetup, context: Contexts) -> None:
    loss = Balance(BalanceConfig(), setup)
    logits = _logits([[0.7, 0.1, 0.1, 0.1], [0.5, 0.3, 0.1, 0.1]])
    assert loss(context(logits)).item() == pytest.approx(1.0)  # nothing counted yet
    loss.after_step()
    # All load on expert 0, whose mean probability is 0.6.
    assert loss(context(logits)).item() == pytest.approx(4 * 0.6)


def test_its_gradient_pulls_tokens_off_the_busy_expert(setup: LossSetup, context: Contexts) -> None:
    loss = Balance(BalanceConfig(), setup)
    logits = _logits([[0.7, 0.1, 0.1, 0.1]])
    loss(context(logits))
    loss.after_step()
    loss(context(logits)).backward()
    assert logits.grad is not None
    # d(4 p_0)/dz = 4 p_0 (delta - p): descending lowers z_0 and raises the others.
    torch.testing.assert_close(logits.grad[0], 4 * 0.7 * torch.tensor([0.3, -0.1, -0.1, -0.1]))


def test_it_looks_at_a_window_not_at_one_concentrated_batch(setup: LossSetup, context: Contexts) -> None:
    loss = Balance(BalanceConfig(window=16), setup)
    batches = [torch.eye(4)[n : n + 1].mul(5.0).repeat(8, 1) for n in range(4)]
    for _ in range(40):
        for batch in batches:
            loss(context(batch))
            loss.after_step()
    # Each batch is all on one expert, but the window is nearly even, so the term is near 1 and not near 4.
    assert loss(context(batches[0])).item() == pytest.approx(1.0, abs=0.15)


def test_padding_counts_neither_as_load_nor_as_probability(setup: LossSetup, context: Contexts) -> None:
    plain, padded = Balance(BalanceConfig(), setup), Balance(BalanceConfig(), setup)
    logits = _logits([[0.7, 0.1, 0.1, 0.1], [0.1, 0.7, 0.1, 0.1]])
    junk = torch.cat([logits.detach(), torch.tensor([[float("nan")] * 4])])
    index = torch.tensor([[0], [1], [2]])
    for _ in range(2):
        values = plain(context(logits)), padded(context(junk, mask=[True, True, False], index=index))
        plain.after_step()
        padded.after_step()
    assert values[0].item() == pytest.approx(values[1].item())


def test_its_window_survives_a_restart(setup: LossSetup, context: Contexts) -> None:
    first, second = Balance(BalanceConfig(), setup), Balance(BalanceConfig(), setup)
    logits = _logits([[0.7, 0.1, 0.1, 0.1]])
    first(context(logits))
    first.after_step()
    second.load_state_dict(first.state_dict())
    assert torch.equal(first(context(logits)), second(context(logits)))


def test_a_dense_model_is_refused(setup: LossSetup) -> None:
    dense = LossSetup(model=setup.model, domains=(), experts=0, top_k=0, layers=0, world_size=1, accumulate=1)
    with pytest.raises(ConfigError, match="'balance' needs a model with experts"):
        Balance(BalanceConfig(), dense)
