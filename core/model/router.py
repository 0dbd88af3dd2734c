"""The contract of every router: hidden states in; logits, weights and indices of experts out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Self

import torch
from torch import nn
from transformers import initialization as init

from ...registry.errors import ConfigError


@dataclass(frozen=True, slots=True, kw_only=True)
class RouterContext:
    """Where a router component is built: sizes of the model and the layer it serves.

    ``first`` is the router of the model's first routed layer, for what layers share; None where this is the first.
    """

    hidden_size: int
    num_experts: int
    top_k: int
    layer: int
    first: RouterBase | None = None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Takeover:
    """What is known when a new router takes the place of an old one in a trained model.

    ``hidden`` are hidden states that reach the router's layer, shape (N, H), fp32; ``old`` is the router that the layer
    had; ``distances`` (E, E), fp32, say how much the weights of two experts differ, averaged over layers; ``seed`` is
    for what is drawn.
    """

    hidden: torch.Tensor
    old: nn.Module
    distances: torch.Tensor
    seed: int


class RouterBase(nn.Module, ABC):
    """Chooses ``top_k`` of E experts for every token and says how much each counts.

    A router component is built as ``target(config, context=RouterContext(...))`` and writes ``scores``,
    ``init_weights`` and, if its weights are not the probabilities, ``gate``. The buffer ``selection_bias``, shape
    (E,), fp32, is added to the probabilities for *selection only* (loss-free balancing: Wang 2024, 2408.15664);
    weights and logits never see it.
    """

    selection_bias: torch.Tensor

    def __init__(self, context: RouterContext) -> None:
        super().__init__()
        self.hidden_size = context.hidden_size
        self.num_experts = context.num_experts
        self.top_k = context.top_k
        self.layer = context.layer
        self.register_buffer("selection_bias", torch.zeros(self.num_experts, dtype=torch.float32))

    @abstractmethod
    def scores(self, hidden: torch.Tensor) -> torch.Tensor:
        """The logits, shape (N, E), of flat hidden states, shape (N, H)."""

    @abstractmethod
    def init_weights(self, std: float) -> None:
        """Fill the parameters with the functions of ``transformers.initialization``, which skip loaded ones."""

    def gate(self, probabilities: torch.Tensor) -> torch.Tensor:
        """The weights of the chosen experts from their probabilities, both shape (N, k), fp32."""
        return probabilities

    def after_step(self, progress: float) -> None:
        """Called after every optimiser step of training; ``progress`` is the share of the step that is done."""

    def take_over(self, takeover: Takeover) -> Mapping[str, float]:
        """Fill the parameters when the router replaces the one that a trained model had; what it reports is logged.

        The default leaves the freshly initialised parameters as they are.
        """
        return {}

    def extend_from(self, smaller: RouterBase, copies: int) -> None:
        """Fill the parameters from the router of a model with ``copies`` times fewer experts: expert ``e`` became
        ``copies * e`` to ``copies * e + copies - 1``. Raises ``ConfigError`` for a router that cannot."""
        raise ConfigError(
            f"{type(self).__name__} cannot be extended to more experts; grow the experts under another router, such as "
            "linear."
        )

    def edges(self) -> torch.Tensor | None:
        """Pairs of experts that are neighbours, shape (M, 2), int64, each pair once with the smaller first; None for a
        router that knows no neighbours."""
        return None

    def stock_normalisation(self) -> bool | None:
        """The ``norm_topk_prob`` with which a stock Qwen3-MoE router computes the same; None where none does."""
        return None

    def reset(self, std: float) -> None:
        """Initialise parameters and buffers that no checkpoint has filled."""
        self.init_weights(std)
        init.zeros_(self.selection_bias)

    def forward(self, hidden: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Route hidden states, shape (..., H): logits (N, E), weights (N, k) in their dtype, index (N, k)."""
        logits = self.scores(hidden.reshape(-1, self.hidden_size))  # shape: (N, E)
        probabilities = torch.softmax(logits, dim=-1, dtype=torch.float32)
        index = torch.topk(probabilities.detach() + self.selection_bias, self.top_k, dim=-1).indices
        weights = self.gate(probabilities.gather(-1, index))  # shape: (N, k)
        return logits, weights.to(logits.dtype), index

    def _apply(self, fn: Callable[[torch.Tensor], torch.Tensor], recurse: bool = True) -> Self:
        # model.to(bfloat16) must not round the bias: its steps of 1e-3 are below bf16's resolution near 1.
        bias = self.selection_bias
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        if self.selection_bias.dtype != torch.float32:
            self.selection_bias = bias.to(self.selection_bias.device)
        return self
