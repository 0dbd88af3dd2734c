"""The warm start of a new router: choose what the old one chose."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import nn

from ...core.model.parameters import routers_of
from ...core.training.routing import routed
from ...core.training.terms import LossContext, LossSetup
from ...registry.errors import ConfigError
from .options import ImitationConfig


class Imitation:
    """Mean over valid tokens and layers of -log p(e), with p the probabilities of the model's router and e the expert
    that the router of the phase's parent, applied to the same hidden states, chooses first (SPEC 2A.9).

    Experts that are frozen were trained on the tokens that the old router gave them, so a new one, of whatever kind,
    must find these again before it may move. Let its weight fall to 0 over the first part of a step. The old routers
    are frozen; nothing else of the parent is kept.

    It tells the ``agreement``: the share of tokens whose first choice is the old one.
    """

    facts: ClassVar[tuple[str, ...]] = ("agreement",)

    def __init__(self, config: ImitationConfig, setup: LossSetup) -> None:
        if setup.parent is None:
            raise ConfigError(
                "the loss 'imitation' has the router learn from that of the model before, and this phase starts from "
                "none; remove the loss or run the phase after another"
            )
        own = {layer: module for _, layer, module in routers_of(setup.model)}
        old = {layer: module for _, layer, module in routers_of(setup.parent())}
        if not own or _experts(own) != _experts(old):
            raise ConfigError(
                "the loss 'imitation' needs routers in the same layers over the same number of experts in this model "
                f"and in the one before, but they have {_told(own)} and {_told(old)}; remove the loss"
            )
        device = next(setup.model.parameters()).device
        # Together, so that what they share they go on sharing.
        self._old = copy.deepcopy(nn.ModuleDict({str(layer): router for layer, router in old.items()}))
        self._old.to(device).eval().requires_grad_(False)
        self.told: list[torch.Tensor] = []

    def __call__(self, ctx: LossContext) -> torch.Tensor:
        routing = routed(ctx)
        with torch.no_grad():
            wanted = torch.stack([self._choices(record.layer, record.hidden) for record in ctx.records])
            chosen = torch.stack([record.index[:, 0] for record in ctx.records])  # shape: (L, N)
        tokens = (routing.tokens * routing.fraction).clamp(min=1)
        self.told = [((wanted == chosen).float() @ routing.valid).mean() / tokens]
        surprise = -routing.logits.log_softmax(-1).gather(-1, wanted[..., None]).squeeze(-1)  # shape: (L, N)
        return (surprise @ routing.valid).mean() / tokens

    def _choices(self, layer: int, hidden: torch.Tensor | None) -> torch.Tensor:
        """What the old router of a layer would choose first. shape: (N, H) -> (N,)"""
        assert hidden is not None, "the trainer records what a router reads"
        router = self._old[str(layer)]
        weight = next(router.parameters(), hidden)
        choices: torch.Tensor = router(hidden.detach().to(weight.dtype))[2][:, 0]
        return choices

    def after_step(self) -> None:
        """Nothing is kept."""

    def state_dict(self) -> Mapping[str, torch.Tensor]:
        """Nothing: the old routers are read from the parent again."""
        return {}

    def load_state_dict(self, state: Mapping[str, torch.Tensor]) -> None:
        """Nothing is kept."""


def _experts(routers: Mapping[int, Any]) -> dict[int, int]:
    return {layer: int(router.num_experts) for layer, router in routers.items()}


def _told(routers: Mapping[int, Any]) -> str:
    counts = sorted(set(_experts(routers).values()))
    experts = " or ".join(map(str, counts)) or "no"
    return f"{len(routers)} routed layers of {experts} experts"
