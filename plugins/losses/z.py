"""The router z-loss: small logits, stable softmax."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from ...core.training.routing import routed
from ...core.training.terms import LossContext, LossSetup
from ...registry.errors import ConfigError
from .options import RouterZConfig


class RouterZ:
    """Mean over valid tokens and layers of logsumexp(logits)^2, in fp32. Zoph 2022, ST-MoE, 2202.08906."""

    def __init__(self, config: RouterZConfig, setup: LossSetup) -> None:
        if setup.experts < 1:
            raise ConfigError("the loss 'z' needs a model with routers; remove it from the step")

    def __call__(self, ctx: LossContext) -> torch.Tensor:
        routing = routed(ctx)
        squares = routing.logits.logsumexp(-1).square() @ routing.valid  # shape: (L,)
        return squares.mean() / (routing.tokens * routing.fraction)

    def after_step(self) -> None:
        """Nothing is kept."""

    def state_dict(self) -> Mapping[str, torch.Tensor]:
        return {}

    def load_state_dict(self, state: Mapping[str, torch.Tensor]) -> None:
        """Nothing is kept."""
