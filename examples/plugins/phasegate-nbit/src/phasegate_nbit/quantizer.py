"""The n-bit quantizer: whole numbers of few bits, symmetric about 0, times a scale."""

from __future__ import annotations

import torch
from phasegate.core.model.quantizer import Codes

from .options import NBitConfig

_SMALLEST = torch.finfo(torch.float16).smallest_normal  # 2^-14
_LARGEST = torch.finfo(torch.float16).max


class NBit:
    """W_q = s q with q = clamp(round(W / s), -Q, Q), Q = 2^(bits - 1) - 1 and s = max|W| / Q, per output row or per
    expert's matrix: symmetric integers without a zero point (Jacob 2018, 1712.05877), halves rounded to even. The
    platform lets gradients pass it by (straight-through: Bengio 2013, 1308.3432).

    s is rounded to fp16 before it is used, so that what is stored is what was trained. It is never below 2^-14, the
    smallest normal number: below, fp16 rounds so coarsely that quantizing twice would change weights again; rows whose
    largest weight is below Q 2^-14 (0.0078 at 8 bits) keep steps of 2^-14. A row with a NaN or an infinity is NaN, so
    that a divergence shows.
    """

    def __init__(self, config: NBitConfig) -> None:
        self.config = config
        self._most = 2 ** (config.bits - 1) - 1

    @torch.no_grad()
    def quantize(self, weight: torch.Tensor) -> torch.Tensor:
        """The values that the forward pass uses. shape: (E, R, C) -> (E, R, C)"""
        return self.encode(weight).decode(weight.dtype)

    @torch.no_grad()
    def encode(self, weight: torch.Tensor) -> Codes:
        """The same as whole numbers and scales. shape: (E, R, C) -> codes (E, R, C), scales (E, R) or (E, 1)"""
        values = weight.detach().float()
        values = values if self.config.scale == "row" else values.flatten(1)[:, None]  # shape: (E, 1, R * C)
        largest = values.abs().amax(dim=-1)
        # The difference is 0, or NaN where the largest is no finite number.
        scales = ((largest / self._most).clamp(_SMALLEST, _LARGEST) + (largest - largest)).half()
        steps = (values / scales.float()[..., None]).round().clamp(-self._most, self._most)
        return Codes(trits=steps.nan_to_num(0.0).to(torch.int8).reshape(weight.shape), scales=scales)
