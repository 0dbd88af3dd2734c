"""Routing consistency: quantized experts hand on other hidden states, and routers should not run after them."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from phasegate import ConfigError
from phasegate.core.model.parameters import routers_of
from phasegate.core.training.routing import routed
from phasegate.core.training.terms import LossContext, LossSetup
from torch import nn

from .options import RoutingConsistencyConfig


class RoutingConsistency:
    """Mean over valid tokens and layers of KL(softmax(l_0 / t) || softmax(l / t)), l the logits of the model's router
    and l_0 those that the router of the phase's parent gives the same hidden state.

    A router that changes while experts are quantized sends tokens to experts that never saw them; aligning it with the
    full-precision one keeps what experts are chosen (routing consistency alignment: Fu 2025, EAQuant, 2506.13329, which
    does so after training; here it is a term of it). The old routers are frozen; nothing else of the parent is kept. It
    is linear in tokens, so it has one value however a step is split into micro-batches.

    It tells the ``agreement``: the share of tokens whose first choice is that of the old router.
    """

    facts: ClassVar[tuple[str, ...]] = ("agreement",)

    def __init__(self, config: RoutingConsistencyConfig, setup: LossSetup) -> None:
        self._temperature = config.temperature
        if setup.parent is None:
            raise ConfigError(
                "the loss 'routing-consistency' holds routers near those of the model before, and this phase starts "
                "from none; remove the loss or run the phase after another"
            )
        own = {layer: module for _, layer, module in routers_of(setup.model)}
        old = {layer: module for _, layer, module in routers_of(setup.parent())}
        if _experts(own) != _experts(old):
            raise ConfigError(
                "the loss 'routing-consistency' needs routers in the same layers over the same number of experts as in "
                "the model before; remove the loss from a step that changes either"
            )
        if not any(True for module in own.values() for _ in module.parameters()):
            raise ConfigError(
                "the loss 'routing-consistency' holds routers still that learn, and those of this model learn nothing; "
                "remove the loss (consistency: 0 in the phase consolidation)"
            )
        # Together, so that what they share they go on sharing.
        self._old = copy.deepcopy(nn.ModuleDict({str(layer): router for layer, router in old.items()}))
        self._old.to(next(setup.model.parameters()).device).eval().requires_grad_(False)
        self.told: list[torch.Tensor] = []

    def __call__(self, ctx: LossContext) -> torch.Tensor:
        routing = routed(ctx)
        valid = routing.valid > 0
        with torch.no_grad():
            before = [
                self._old[str(record.layer)](_read(record.hidden, self._old[str(record.layer)]))
                for record in ctx.records
            ]
            wanted = torch.stack([index[:, 0] for _, _, index in before])
            chosen = torch.stack([record.index[:, 0] for record in ctx.records])
            logits = torch.stack([logits for logits, _, _ in before]).float()  # shape: (L, N, E)
            target = (torch.where(valid[:, None], logits, 0.0) / self._temperature).log_softmax(-1)
        tokens = (routing.tokens * routing.fraction).clamp(min=1)
        self.told = [((wanted == chosen) & valid).sum(-1).float().mean() / tokens]
        now = (routing.logits / self._temperature).log_softmax(-1)
        divergence = (target.exp() * (target - now)).sum(-1)  # shape: (L, N)
        value: torch.Tensor = (divergence @ routing.valid).mean() / tokens
        return value

    def after_step(self) -> None:
        """Nothing is kept."""

    def state_dict(self) -> Mapping[str, torch.Tensor]:
        """Nothing: the old routers are read from the parent again."""
        return {}

    def load_state_dict(self, state: Mapping[str, torch.Tensor]) -> None:
        """Nothing is kept."""


def _experts(routers: Mapping[int, Any]) -> dict[int, int]:
    return {layer: int(router.num_experts) for layer, router in routers.items()}


def _read(hidden: torch.Tensor | None, router: nn.Module) -> torch.Tensor:
    """What a router reads, without gradient and in its dtype. shape: (N, H)"""
    assert hidden is not None, "the trainer records what a router reads"
    return hidden.detach().to(next(router.parameters(), hidden).dtype)
