"""Balancing without a gradient: a selection bias per expert that follows its load."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from ...core.training.routing import routed
from ...core.training.terms import LossContext, LossSetup
from ...core.training.window import sum_over_processes
from ...registry.errors import ConfigError
from .options import LossFreeBiasConfig


class LossFreeBias:
    """After every optimiser step b_e += rate * sign(mean load - load_e), on each router's ``selection_bias``.

    The load is counted over the whole step and all processes. The bias changes which experts are chosen and nothing
    else; the term itself is zero, so its weight does nothing. Wang 2024, 2408.15664.
    """

    def __init__(self, config: LossFreeBiasConfig, setup: LossSetup) -> None:
        biased = [m for m in setup.model.modules() if isinstance(getattr(m, "selection_bias", None), torch.Tensor)]
        if not biased:
            raise ConfigError(
                f"the loss 'loss-free-bias' moves a router's selection bias, and {type(setup.model).__name__} has "
                "none; use the model 'moe' or the loss 'balance'"
            )
        self._config = config
        self._routers: list[torch.nn.Module] = biased
        self._counts: torch.Tensor | None = None

    def __call__(self, ctx: LossContext) -> torch.Tensor:
        counts = routed(ctx).counts[:, :-1].sum(1)  # shape: (L, E)
        self._counts = counts if self._counts is None else self._counts + counts
        self._routers = [record.module for record in ctx.records]
        return counts.new_zeros(())

    def after_step(self) -> None:
        if self._counts is None:
            return
        counts = sum_over_processes(self._counts)
        steps = self._config.rate * torch.sign(counts.mean(-1, keepdim=True) - counts)
        for router, step in zip(self._routers, steps, strict=True):
            bias = router.get_buffer("selection_bias")
            bias.add_(step.to(bias.device))
        self._counts = None

    def state_dict(self) -> Mapping[str, torch.Tensor]:
        """Nothing beside the biases, which are buffers of the model and saved with it."""
        return {}

    def load_state_dict(self, state: Mapping[str, torch.Tensor]) -> None:
        self._counts = None
