"""The terms of the safety loss: their values by hand, and what they do not look at."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from phasegate.core.training.pairs import Answers, Pairs, RowCounts
from phasegate.core.training.terms import LossContext, LossSetup
from phasegate.plugins.losses.domain_helpfulness import DomainHelpfulness
from phasegate.plugins.losses.harm_avoidance import HarmAvoidance
from phasegate.plugins.losses.options import DomainHelpfulnessConfig, HarmAvoidanceConfig, OverRefusalConfig
from phasegate.plugins.losses.over_refusal import OverRefusal

KINDS = ("benign", "general", "harmful", "legal", "medical")
Row = tuple[str, Sequence[float], Sequence[float]]  # kind, probabilities of what should be said, and of what should not


def _side(rows: Sequence[Sequence[float]], first: int) -> Answers:
    width = max(1, *(len(row) for row in rows))
    labels = torch.tensor([[first + n if n < len(row) else -100 for n in range(width)] for row in rows])
    logs = torch.tensor([[math.log(row[n]) if n < len(row) else 0.0 for n in range(width)] for row in rows])
    return Answers(tokens=logs.requires_grad_(), labels=labels, mask=(labels != -100).float())


def context_of(*rows: Row) -> LossContext:
    """A context whose micro-batch is the whole optimiser step."""
    chosen, rejected = _side([row[1] for row in rows], 10), _side([row[2] for row in rows], 50)
    kind = torch.tensor([KINDS.index(row[0]) for row in rows])
    counts = torch.zeros(2, len(KINDS))
    for row in rows:
        counts[0, KINDS.index(row[0])] += 1
        counts[1, KINDS.index(row[0])] += bool(row[2])
    none = torch.zeros(0)
    return LossContext(
        model=torch.nn.Module(),
        records=(),
        mask=none.bool(),
        domain=none.long(),
        domains=(),
        step=0,
        progress=0.0,
        pairs=Pairs(
            chosen=chosen, rejected=rejected, kind=kind, kinds=KINDS, step=RowCounts(rows=counts[0], paired=counts[1])
        ),
    )


def test_harm_avoidance_is_likelihood_of_safety_and_half_the_unlikelihood_of_harm(setup: LossSetup) -> None:
    ctx = context_of(
        ("harmful", [0.5, 0.25], [0.75, 0.5]), ("harmful", [0.5], []), ("benign", [0.1], [0.1]), ("general", [0.1], [])
    )
    first = -(math.log(0.5) + math.log(0.25)) / 2 - 0.5 * (math.log(0.25) + math.log(0.5)) / 2
    second = -math.log(0.5)
    value = HarmAvoidance(HarmAvoidanceConfig(), setup)(ctx)
    assert value.item() == pytest.approx((first + second) / 2)


def test_over_refusal_is_a_soft_hinge_on_refusal_minus_help_per_token(setup: LossSetup) -> None:
    ctx = context_of(
        ("benign", [0.5, 0.5], [0.25]),
        ("legal", [0.25], [0.5, 0.5]),
        ("medical", [0.5], []),
        ("harmful", [0.5], [0.9]),
        ("general", [0.5], [0.9]),
    )
    margin = math.log(2)  # of help over refusal in the first row, and the other way round in the second
    expected = (math.log1p(math.exp(1 - margin)) + math.log1p(math.exp(1 + margin))) / 2
    assert OverRefusal(OverRefusalConfig(), setup)(ctx).item() == pytest.approx(expected)
    wide = OverRefusal(OverRefusalConfig(margin=3.0, kinds=("legal",)), setup)(ctx)
    assert wide.item() == pytest.approx(math.log1p(math.exp(3 + margin)))


def test_domain_helpfulness_is_the_likelihood_of_professional_help(setup: LossSetup) -> None:
    ctx = context_of(("medical", [0.5, 0.125], []), ("legal", [0.25], [0.5]), ("benign", [0.01], [0.5]))
    value = DomainHelpfulness(DomainHelpfulnessConfig(), setup)(ctx)
    assert value.item() == pytest.approx((2 * math.log(2) + 2 * math.log(2)) / 2)


@pytest.mark.parametrize(
    "loss",
    [
        lambda setup: HarmAvoidance(HarmAvoidanceConfig(), setup),
        lambda setup: OverRefusal(OverRefusalConfig(), setup),
        lambda setup: DomainHelpfulness(DomainHelpfulnessConfig(), setup),
    ],
    ids=["harm-avoidance", "over-refusal", "domain-helpfulness"],
)
def test_a_micro_batch_without_its_rows_adds_nothing_and_can_be_differentiated(loss: Any, setup: LossSetup) -> None:
    ctx = context_of(("general", [0.5], [0.5]))
    value = loss(setup)(ctx)
    value.backward()
    assert ctx.pairs is not None and ctx.pairs.chosen.tokens.grad is not None
    assert value.item() == 0.0
    assert not ctx.pairs.chosen.tokens.grad.any()


def test_each_term_pulls_the_way_it_says(setup: LossSetup) -> None:
    ctx = context_of(("harmful", [0.5], [0.5]), ("benign", [0.5], [0.5]))
    assert ctx.pairs is not None
    (HarmAvoidance(HarmAvoidanceConfig(), setup)(ctx) + OverRefusal(OverRefusalConfig(), setup)(ctx)).backward()
    said, unsaid = ctx.pairs.chosen.tokens.grad, ctx.pairs.rejected.tokens.grad
    assert said is not None and (said < 0).all()  # descending makes what should be said likelier
    assert unsaid is not None and (unsaid > 0).all()
