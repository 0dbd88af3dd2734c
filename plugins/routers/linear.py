"""The linear router: top-k of a softmax over one projection, with three gates."""

from __future__ import annotations

import torch
from torch import nn
from transformers import initialization as init

from ...core.model.router import RouterBase, RouterContext
from .options import LinearRouterConfig

# A selection bias can choose an expert whose probability has underflown to 0.
_TINY = torch.finfo(torch.float32).tiny


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
        if self.mode == "normalized":
            return probabilities / probabilities.sum(dim=-1, keepdim=True).clamp_min(_TINY)
        if self.mode == "straight-through":
            value = probabilities.detach()
            return 1.0 + (probabilities - value) / value.clamp_min(_TINY)
        return probabilities

    def stock_normalisation(self) -> bool | None:
        if type(self) is not LinearRouter:
            return None
        if self.mode == "straight-through":
            return True if self.top_k == 1 else None
        return self.mode == "normalized"
