"""The contract of every quantizer: stacked expert weights in, the weights that the forward pass uses out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Codes:
    """Quantized weights as whole numbers: ``trits`` (E, R, C), int8, and ``scales``, fp16, (E, R) per output row or
    (E, 1) per matrix. The weights are ``scales[..., None] * trits``. Codes that are all in {-1, 0, 1} can be packed
    and told apart by deltas; others are exported as the values that they stand for."""

    trits: torch.Tensor
    scales: torch.Tensor

    def decode(self, dtype: torch.dtype = torch.float32) -> torch.Tensor:
        """The weights, shape (E, R, C)."""
        return self.scales.to(dtype)[..., None] * self.trits.to(dtype)


class Quantizer(Protocol):
    """A quantizer component, built as ``target(config)``; it keeps no state.

    ``quantize`` and ``encode`` agree bit for bit: ``quantize(w) == encode(w).decode(w.dtype)``. Quantizing what was
    quantized changes nothing. Gradients are not its business: the forward pass lets them through (straight-through
    estimator: Bengio 2013, 1308.3432).
    """

    def quantize(self, weight: torch.Tensor) -> torch.Tensor:
        """The values that the forward pass uses for latent weights (E, R, C), without gradient."""
        ...

    def encode(self, weight: torch.Tensor) -> Codes:
        """The same as codes, for packing."""
        ...
