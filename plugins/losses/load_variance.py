"""Load balancing by the variance of the load that is really there."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from ...core.training.routing import routed
from ...core.training.terms import LossContext, LossSetup
from ...core.training.window import LoadWindow
from ...registry.errors import ConfigError
from .options import LoadVarianceConfig


class LoadVariance:
    """Pulls every layer's load towards uniform: CV^2 = E sum_e A_e^2 - 1, averaged over layers; 0 when balanced, E - 1
    when one expert gets everything.

    A is the share of token slots in a window of optimiser steps over all processes, as of the start of the step.
    Straight-through: the *value* is that of A, the *gradient* 2 E sum_e A_e dP_e goes through the mean routing
    probability P of the tokens at hand, so the term is exact under accumulation and data parallelism. CV^2: Shazeer
    2017, 1701.06538; over the global batch: Qiu 2025, 2501.11873.

    The original takes the variance of the counts themselves (SPEC E3.23). Counts have no gradient, and
    Var = CV^2 / E^2: at collapse on one of 128 experts it is 0.0078, where the Switch loss is 128, which is 16,500
    times as much.
    """

    def __init__(self, config: LoadVarianceConfig, setup: LossSetup) -> None:
        if setup.experts < 2:
            raise ConfigError("the loss 'load-variance' needs a model with experts to balance; remove it from the step")
        self._window = LoadWindow(config.window)
        self._setup = setup
        self._plane: tuple[torch.Tensor, torch.Tensor] | None = None

    def __call__(self, ctx: LossContext) -> torch.Tensor:
        routing = routed(ctx)
        self._window.add(routing.counts[:, :-1].sum(1))
        mean = routing.mean()  # shape: (L, E)
        if self._plane is None:
            share = self._window.share(mean.detach())
            layers, experts = share.shape
            value = experts * share.square().sum(-1).mean() - 1.0
            self._plane = value, share * (2.0 * experts / layers)
        value, slope = self._plane
        through = (slope * mean).sum()
        return value + through - through.detach()

    def after_step(self) -> None:
        self._window.advance()
        self._plane = None

    def state_dict(self) -> Mapping[str, torch.Tensor]:
        return self._window.state_dict()

    def load_state_dict(self, state: Mapping[str, torch.Tensor]) -> None:
        self._window.load_state_dict(state, next(self._setup.model.parameters()).device)
        self._plane = None
