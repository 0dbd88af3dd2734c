"""The contract of every token mixer: hidden states in, mixed hidden states out, one cache entry per layer."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class MixerContext:
    """Where a mixer component is built: the model's Hugging Face configuration, the layer it serves, and the library's
    attention of that layer, which a mixer may return as it is."""

    config: Any
    layer: int
    attention: nn.Module


class MixerBase(nn.Module, ABC):
    """Mixes the tokens of a layer in place of attention.

    A mixer component is built as ``target(config, context=MixerContext(...))`` and writes ``forward`` and
    ``init_weights``. Its ``MixerSpec`` says which cache its layers get from the library. A causal mixer keeps the
    documents of a packed row apart by ``position_ids``, which begin anew at 0 with each.
    """

    @abstractmethod
    def forward(
        self,
        hidden_states: torch.Tensor,
        position_embeddings: tuple[torch.Tensor, torch.Tensor] | None = None,
        attention_mask: torch.Tensor | None = None,
        past_key_values: Any = None,
        position_ids: torch.Tensor | None = None,
        **kwargs: Any,
    ) -> tuple[torch.Tensor, None]:
        """Mixed hidden states (B, T, H) of normed ones (B, T, H), and None.

        ``attention_mask`` is (B, T) or None for a mixer whose cache is ``linear_attention`` (0 marks padding), else
        what the library's attention takes; ``position_ids`` (B or 1, T).
        """

    @abstractmethod
    def init_weights(self, std: float) -> None:
        """Fill the parameters with the functions of ``transformers.initialization``, which skip loaded ones."""
