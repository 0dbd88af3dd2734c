"""The specialisation hinge. Experts: 4; domains: general (0), code (1)."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from phasegate.core.training.terms import LossContext, LossSetup
from phasegate.plugins.losses.domain_entropy import DomainEntropy, DomainEntropyConfig
from phasegate.registry.errors import ConfigError

Contexts = Callable[..., LossContext]
OFF = {"uniformity": 0.0, "general_floor": 0.0}


def _seen(loss: DomainEntropy, context: Contexts, index: list[int], domain: list[int]) -> None:
    loss(context(torch.zeros(len(index), 4), domain=domain, index=torch.tensor(index)[:, None]))
    loss.after_step()


def test_a_domain_above_its_target_pays_the_excess(setup: LossSetup, context: Contexts) -> None:
    loss = DomainEntropy(DomainEntropyConfig(target_high=1.0, floor=0.5, **OFF), setup)
    _seen(loss, context, [0, 1, 2, 3], [1, 1, 1, 1])
    value = loss(context(torch.zeros(1, 4), domain=[1], index=torch.tensor([[0]])))
    # Code is at ln 4; the mean over two domains halves it. General has no floor here.
    assert value.item() == pytest.approx((math.log(4) - 1.0) / 2, abs=1e-6)


def test_a_domain_below_its_floor_pays_what_is_missing(setup: LossSetup, context: Contexts) -> None:
    loss = DomainEntropy(DomainEntropyConfig(target_high=1.0, floor=0.9, **OFF), setup)
    _seen(loss, context, [0, 1], [1, 1])
    value = loss(context(torch.zeros(1, 4), domain=[1], index=torch.tensor([[0]])))
    assert value.item() == pytest.approx((0.9 - math.log(2)) / 2, abs=1e-6)


def test_between_floor_and_target_nothing_pulls(setup: LossSetup, context: Contexts) -> None:
    loss = DomainEntropy(DomainEntropyConfig(target_high=1.2, floor=0.5, **OFF), setup)
    _seen(loss, context, [0, 1], [1, 1])  # ln 2 = 0.69
    logits = torch.randn(3, 4, generator=torch.Generator().manual_seed(0)).requires_grad_()
    value = loss(context(logits, domain=[1, 1, 1]))
    value.backward()
    assert value.item() == pytest.approx(0.0, abs=1e-6)
    assert logits.grad is not None and logits.grad.abs().max() < 1e-7


def test_above_the_target_the_busy_experts_gain(setup: LossSetup, context: Contexts) -> None:
    loss = DomainEntropy(DomainEntropyConfig(target_high=0.8, floor=0.5, **OFF), setup)
    _seen(loss, context, [0, 0, 0, 1, 2, 3], [1] * 6)
    logits = torch.zeros(1, 4, requires_grad=True)
    loss(context(logits, domain=[1])).backward()
    assert logits.grad is not None
    step = -logits.grad[0]
    assert step[0] > 0 and (step[1:] < 0).all()


def test_below_the_floor_the_idle_experts_gain(setup: LossSetup, context: Contexts) -> None:
    loss = DomainEntropy(DomainEntropyConfig(target_high=1.2, floor=0.9, **OFF), setup)
    _seen(loss, context, [0, 0, 0, 1], [1] * 4)
    logits = torch.zeros(1, 4, requires_grad=True)
    loss(context(logits, domain=[1])).backward()
    assert logits.grad is not None
    assert -logits.grad[0, 0] < 0 < -logits.grad[0, 3]


def test_the_general_domain_has_a_floor_and_no_target(setup: LossSetup, context: Contexts) -> None:
    config = DomainEntropyConfig(target_high=0.8, floor=0.5, general_floor=1.2, uniformity=0.0)
    loss = DomainEntropy(config, setup)
    _seen(loss, context, [0, 1, 2, 3, 0, 0], [0, 0, 0, 0, 1, 1])
    value = loss(context(torch.zeros(1, 4), domain=[0], index=torch.tensor([[0]])))
    # General at ln 4 pays nothing, though it is far above 0.8; code at 0 pays its floor of 0.5.
    assert value.item() == pytest.approx(0.25, abs=1e-6)


def test_the_value_is_that_of_hard_load_not_of_probabilities(setup: LossSetup, context: Contexts) -> None:
    loss = DomainEntropy(DomainEntropyConfig(target_high=0.8, floor=0.5, **OFF), setup)
    _seen(loss, context, [0, 1, 2, 3], [1] * 4)
    values = {
        loss(context(logits, domain=[1])).item() for logits in (torch.zeros(1, 4), torch.tensor([[9.0, 0, 0, 0]]))
    }
    assert len(values) == 1


def test_uneven_load_overall_is_pulled_apart_again(setup: LossSetup, context: Contexts) -> None:
    config = DomainEntropyConfig(target_high=1.3, floor=0.0, general_floor=0.0, uniformity=1.0)
    loss = DomainEntropy(config, setup)
    _seen(loss, context, [0, 0, 0, 1], [0] * 4)
    logits = torch.zeros(1, 4, requires_grad=True)
    value = loss(context(logits, domain=[0]))
    value.backward()
    share = torch.tensor([0.75, 0.25])
    expected = math.log(4) + float((share * share.log()).sum())
    # General pays nothing; code has no tokens, so it counts as uniform, ln 4, which exceeds 1.3 by a little.
    assert value.item() == pytest.approx(expected + (math.log(4) - 1.3) / 2, abs=1e-5)
    assert logits.grad is not None and -logits.grad[0, 0] < 0 < -logits.grad[0, 3]


def test_tokens_of_unknown_domain_count_for_nothing(setup: LossSetup, context: Contexts) -> None:
    config = DomainEntropyConfig(target_high=0.8, floor=0.5, general_floor=0.0)
    losses = [DomainEntropy(config, setup) for _ in range(2)]
    _seen(losses[0], context, [0, 1, 2, 3], [1] * 4)
    _seen(losses[1], context, [0, 1, 2, 3, 0, 0, 0, 0], [1] * 4 + [-1] * 4)
    with_unknown = torch.zeros(2, 4, requires_grad=True)
    values = [losses[0](context(torch.zeros(1, 4), domain=[1])), losses[1](context(with_unknown, domain=[1, -1]))]
    values[1].backward()
    assert values[0].item() == pytest.approx(values[1].item(), abs=1e-6)
    assert with_unknown.grad is not None and with_unknown.grad[1].abs().max() == 0


def test_the_overall_load_does_not_follow_the_last_batch(setup: LossSetup, context: Contexts) -> None:
    config = DomainEntropyConfig(target_high=1.3, floor=0.0, general_floor=0.0, uniformity=1.0, window=2)
    loss = DomainEntropy(config, setup)
    # General uses experts 0 and 1, code 2 and 3: even overall, though each batch is of one domain only.
    for _ in range(10):
        _seen(loss, context, [0, 1, 0, 1], [0] * 4)
        _seen(loss, context, [2, 3, 2, 3], [1] * 4)
    value = loss(context(torch.zeros(1, 4), domain=[1], index=torch.tensor([[2]])))
    assert value.item() == pytest.approx(0.0, abs=0.01)


def test_its_state_survives_a_restart(setup: LossSetup, context: Contexts) -> None:
    first, second = (DomainEntropy(DomainEntropyConfig(general_floor=1.2), setup) for _ in range(2))
    _seen(first, context, [0, 1, 2], [0, 1, 1])
    second.load_state_dict(first.state_dict())
    logits = torch.zeros(2, 4)
    assert torch.equal(first(context(logits, domain=[0, 1])), second(context(logits, domain=[0, 1])))


def test_a_cap_keeps_any_expert_from_owning_a_domain(setup: LossSetup, context: Contexts) -> None:
    config = DomainEntropyConfig(target_high=1.3, floor=0.0, cap=0.7, cap_weight=2.0, **OFF)
    loss = DomainEntropy(config, setup)
    _seen(loss, context, [0] * 9 + [1] + [0, 1, 2, 3], [1] * 10 + [0] * 4)
    logits = torch.zeros(1, 4, requires_grad=True)
    value = loss(context(logits, domain=[1]))
    value.backward()
    assert value.item() == pytest.approx(2.0 * (0.9 - 0.7) / 2, abs=1e-6)
    assert logits.grad is not None and -logits.grad[0, 0] < 0


def test_tokens_of_unknown_domain_have_no_domain_gradient(setup: LossSetup, context: Contexts) -> None:
    loss = DomainEntropy(DomainEntropyConfig(target_high=0.8, floor=0.5, **OFF), setup)
    _seen(loss, context, [0, 0, 0, 1, 2, 3], [1] * 6)
    logits = torch.zeros(2, 4, requires_grad=True)
    loss(context(logits, domain=[1, -1])).backward()
    assert logits.grad is not None
    assert logits.grad[0].abs().max() > 0 and logits.grad[1].abs().max() == 0


def test_it_drives_hard_load_into_its_window(setup: LossSetup, context: Contexts) -> None:
    config = DomainEntropyConfig(target_high=1.0, floor=0.8, general_floor=1.3)
    loss = DomainEntropy(config, setup)
    random = torch.Generator().manual_seed(0)
    domain = [0] * 64 + [1] * 64
    table = torch.nn.Parameter(0.1 * torch.randn(2, 4, generator=random))
    optimizer = torch.optim.Adam([table], lr=0.02)
    for _ in range(400):
        noise = torch.randn(128, 4, generator=random)
        logits = table[torch.tensor(domain)] + noise
        loss(context(logits, domain=domain)).backward()
        optimizer.step()
        optimizer.zero_grad()
        loss.after_step()
    noise = torch.randn(4096, 4, generator=random)
    chosen = (table[1].detach() + noise).argmax(-1)
    share = torch.bincount(chosen, minlength=4) / 4096
    assert 0.7 < float(torch.special.entr(share).sum()) < 1.1
    chosen = (table[0].detach() + noise).argmax(-1)
    share = torch.bincount(chosen, minlength=4) / 4096
    assert float(torch.special.entr(share).sum()) > 1.2


def test_bounds_above_the_logarithm_of_the_experts_are_refused(setup: LossSetup) -> None:
    with pytest.raises(ConfigError, match=r"ln 4 = 1\.39 nats .* general_floor 1\.5; change its options"):
        DomainEntropy(DomainEntropyConfig(), setup)


def test_data_without_domains_is_refused(setup: LossSetup) -> None:
    bare = LossSetup(model=setup.model, domains=(), experts=9, top_k=1, layers=1, world_size=1, accumulate=1)
    with pytest.raises(ConfigError, match="needs data with domains"):
        DomainEntropy(DomainEntropyConfig(), bare)
