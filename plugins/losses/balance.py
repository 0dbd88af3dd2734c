"""Load balancing over a global window of batches."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from ...core.training.routing import routed
from ...core.training.terms import LossContext, LossSetup
from ...core.training.window import LoadWindow
from ...registry.errors import ConfigError
from .options import BalanceConfig


class Balance:
    """Pulls every layer's load towards uniform: E sum_e f_e P_e, averaged over layers; 1 when balanced, any top-k.

    f is the share of token slots in a window of optimiser steps over all processes, as of the start of the step, and
    constant; P is the mean routing probability of the tokens at hand and carries the gradient, so the term is exact
    under accumulation and data parallelism. Fedus 2021, 2101.03961; over the global batch: Qiu 2025, 2501.11873.
    """

    def __init__(self, config: BalanceConfig, setup: LossSetup) -> None:
        if setup.experts < 2:
            raise ConfigError("the loss 'balance' needs a model with experts to balance; remove it from the step")
        self._window = LoadWindow(config.window)
        self._setup = setup
        self._factor: torch.Tensor | None = None

    def __call__(self, ctx: LossContext) -> torch.Tensor:
        routing = routed(ctx)
        self._window.add(routing.counts[:, :-1].sum(1))
        mean = routing.mean()  # shape: (L, E)
        if self._factor is None:
            self._factor = self._window.share(mean.detach()) * (mean.shape[1] / mean.shape[0])
        return (self._factor * mean).sum()

    def after_step(self) -> None:
        self._window.advance()
        self._factor = None

    def state_dict(self) -> Mapping[str, torch.Tensor]:
        return self._window.state_dict()

    def load_state_dict(self, state: Mapping[str, torch.Tensor]) -> None:
        self._window.load_state_dict(state, next(self._setup.model.parameters()).device)
        self._factor = None
