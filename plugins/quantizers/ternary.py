"""The ternary quantizer: every expert weight is -s, 0 or s."""

from __future__ import annotations

import torch

from ...core.model.quantizer import Codes
from .options import TernaryConfig

# Keeps the mean of a row of equal magnitudes, rounded in any way, below each of them at a threshold of 1.
_BELOW_ONE = 1.0 - 2.0**-16
_LARGEST = torch.finfo(torch.float16).max


class Ternary:
    """Ternary weights W_q = s T with tau = threshold mean|W|, T = sign(W) 1[|W| > tau], s = mean(|W| : |W| > tau), all
    per row or per expert's matrix (ternary weight networks: Li 2016, 1605.04711).

    Of Gaussian weights 42.3 % become 0 at 0.7, of Laplacian ones 50.3 %, of uniform ones 35.0 % (the seed's "about
    50 %" holds for none of the first and last kind); the squared error of Gaussian weights is 0.19 of their square. The
    seed has no s, which makes a layer's output 37.7 times too large at a standard deviation of 0.02.

    s is rounded to fp16 before it is used, so that packed weights are the trained ones bit for bit. A scale is never
    over several experts, where an expert of small weights would be all zeros. A row of zeros stays one; a row with a
    NaN or an infinity is NaN, so that a divergence shows.
    """

    def __init__(self, config: TernaryConfig) -> None:
        self.config = config
        self._factor = min(config.threshold, _BELOW_ONE)

    @torch.no_grad()
    def quantize(self, weight: torch.Tensor) -> torch.Tensor:
        return self.encode(weight).decode(weight.dtype)

    @torch.no_grad()
    def encode(self, weight: torch.Tensor) -> Codes:
        experts, _, columns = weight.shape
        width = columns if self.config.scale == "row" else -1
        # shape: (E, R, C), or (E, 1, R * C) with one scale per matrix
        values = weight.detach().reshape(experts, -1 if width > 0 else 1, width).float()
        limit = values.abs().mean(dim=-1, keepdim=True) * self._factor
        # bool is one byte, so that a difference of views is the sign without another pass
        trits = (values > limit).view(torch.int8) - (values < -limit).view(torch.int8)
        signs = trits.float()
        kept = (signs * signs).sum(dim=-1)
        # |W| = W sign(W) where kept; a product, unlike a selection, lets NaN through.
        scales = (values * signs).sum(dim=-1) / kept.clamp_min(1.0)
        return Codes(trits=trits.reshape(weight.shape), scales=scales.clamp_max(_LARGEST).half())
