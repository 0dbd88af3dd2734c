"""The library's attention, as one mixer among others."""

from __future__ import annotations

from torch import nn

from ...core.model.mixer import MixerContext


def attention(*, context: MixerContext) -> nn.Module:
    """The attention that the library built for the layer, as it is."""
    return context.attention
