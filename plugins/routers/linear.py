"""The linear router: top-k of a softmax over one projection, with three gates."""

from __future__ import annotations

from typing import Literal

import torch
from torch import nn
from transformers import initialization as init

from ...core.model.router import RouterBase, RouterContext
from ...registry.errors import ConfigError
from .options import LinearRouterConfig

# A selection bias can choose an expert whose probability has underflown to 0.
_TINY = torch.finfo(torch.float32).tiny


def weigh(mode: Literal["normalized", "softmax", "straight-through"], probabilities: torch.Tensor) -> torch.Tensor:
    """The weights of the chosen experts from their probabilities, both shape (N, k): see ``LinearRouterConfig``."""
    if mode == "normalized":
        return probabilities / probabilities.sum(dim=-1, keepdim=True).clamp_min(_TINY)
    if mode == "straight-through":
        value = probabilities.detach()
        return 1.0 + (probabilities - value) / value.clamp_min(_TINY)
    return probabilities


def check_growth(router: RouterBase, smaller: RouterBase, copies: int) -> None:
    """Raise ``ConfigError`` unless ``smaller`` is a router of the same kind and width with ``copies`` times fewer
    experts."""
    mine = (type(router).__name__, router.hidden_size, router.num_experts)
    theirs = (type(smaller).__name__, smaller.hidden_size, smaller.num_experts * copies)
    if mine != theirs:
        raise ConfigError(
            f"the {mine[0]} for {mine[2]} experts of width {mine[1]} cannot continue the {theirs[0]} for "
            f"{smaller.num_experts} experts of width {theirs[1]} with {copies} copies of each; keep the router and the "
            "width, and multiply the experts by the copies."
        )


class LinearRouter(RouterBase):
    """logits = W h, W of shape (E, H); p = softmax(logits) in fp32; the ``top_k`` largest p are chosen."""

    def __init__(self, config: LinearRouterConfig, *, context: RouterContext) -> None:
        super().__init__(context)
        self.mode = config.gate
        self.weight = nn.Parameter(torch.empty(self.num_experts, self.hidden_size))

    def scores(self, hidden: torch.Tensor) -> torch.Tensor:
        return nn.functional.linear(hidden, self.weight)

    def init_weights(self, std: float) -> None:
        init.normal_(self.weight, mean=0.0, std=std)

    def gate(self, probabilities: torch.Tensor) -> torch.Tensor:
        return weigh(self.mode, probabilities)

    @torch.no_grad()
    def extend_from(self, smaller: RouterBase, copies: int) -> None:
        """Give all copies of an expert its row, so that they share its probability evenly; whoever grows the model
        breaks the tie. The selection bias is shared alike, which keeps what it selects."""
        check_growth(self, smaller, copies)
        self.weight.copy_(smaller.get_parameter("weight").repeat_interleave(copies, dim=0))
        self.selection_bias.copy_(smaller.selection_bias.repeat_interleave(copies) / copies)

    def stock_normalisation(self) -> bool | None:
        if type(self) is not LinearRouter:
            return None
        if self.mode == "straight-through":
            return True if self.top_k == 1 else None
        return self.mode == "normalized"
