"""Loss terms with one thing wrong each, caught by the check that is named beside it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
from phasegate.core.training.routing import routed
from phasegate.core.training.terms import LossContext, LossSetup
from phasegate.registry.components import LossSpec


class Spread:
    """Mean squared probability of an expert: a sound term over valid tokens."""

    def __init__(self, setup: LossSetup) -> None:
        self.setup = setup

    def __call__(self, ctx: LossContext) -> torch.Tensor:
        return routed(ctx).mean().square().sum() * 0.0 + self.linear(ctx)

    def linear(self, ctx: LossContext) -> torch.Tensor:
        return routed(ctx).mean()[:, 0].sum()

    def after_step(self) -> None:
        """It keeps no state."""

    def state_dict(self) -> Mapping[str, torch.Tensor]:
        return {}

    def load_state_dict(self, state: Mapping[str, torch.Tensor]) -> None:
        """It keeps no state."""


class Vector(Spread):
    def __call__(self, ctx: LossContext) -> torch.Tensor:
        return routed(ctx).mean()[:, 0]


class Detached(Spread):
    def __call__(self, ctx: LossContext) -> torch.Tensor:
        return self.linear(ctx).detach()


class SeesPadding(Spread):
    def __call__(self, ctx: LossContext) -> torch.Tensor:
        return torch.stack([record.logits.float().square().mean() for record in ctx.records]).sum()


class Summed(Spread):
    """A sum over tokens where a mean is asked for."""

    def __call__(self, ctx: LossContext) -> torch.Tensor:
        return routed(ctx).sums[:, :-1, 0].sum()


class Noisy(Spread):
    def __call__(self, ctx: LossContext) -> torch.Tensor:
        return self.linear(ctx) * (1.0 + torch.rand(()))


class Meddling(Spread):
    def __call__(self, ctx: LossContext) -> torch.Tensor:
        ctx.model.eval()
        return self.linear(ctx)


class Forgetful(Spread):
    """Grows with every step, and does not save how many there were."""

    steps = 0

    def __call__(self, ctx: LossContext) -> torch.Tensor:
        return self.linear(ctx) * (1 + self.steps)

    def after_step(self) -> None:
        self.steps += 1


class Silent(Spread):
    facts = ("drift", "share")

    def __call__(self, ctx: LossContext) -> torch.Tensor:
        value = self.linear(ctx)
        self.told = [value.detach()]
        return value


BROKEN = {
    "scalar": (Vector, "shape (2,)"),
    "takes-effect": (Detached, "No parameter gets a gradient"),
    "masked": (SeesPadding, "Other padding"),
    "accumulation": (Summed, "split"),
    "determinism": (Noisy, ""),
    "leaves-the-model": (Meddling, "another mode"),
    "state-dict": (Forgetful, "After loading"),
    "told": (Silent, "names 2 facts and tells 1"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_loss_is_caught(name: str, failure: Callable[..., str], spec_of: Callable[..., Any]) -> None:
    target, said = BROKEN[name]
    assert said in failure(spec_of(LossSpec, target), name)


def test_every_check_of_losses_catches_something(names: Callable[[str], set[str]]) -> None:
    assert set(BROKEN) == names("loss")
