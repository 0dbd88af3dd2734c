"""Options of the token mixers, apart from them so that a plan can check an experiment without importing torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

from ...registry.errors import ConfigError
from ...registry.suggest import divisors_near


@dataclass(frozen=True, slots=True, kw_only=True)
class AttentionConfig:
    """No options: heads and window are sizes of the model."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PdrConfig:
    """How much a PDR layer remembers, how fast it forgets, and how it is computed.

    ``rank``: columns r of the state (d, r); None is hidden_size // 16, at least 1. ``tau``: the log-decay is divided
    by it; at 16 a fresh layer keeps 0.957 of its state per token, and its memory halves in 16 tokens. ``chunk``:
    tokens that are computed at once in training; a token keeps at least exp(-120 / chunk) of the state, 0.15 at 64 and
    0.63 at 256, which no float32 overflows at. ``group``: channels per group of the norm of what is read, cut to
    hidden_size; must divide it.
    """

    rank: Annotated[int, Field(ge=1)] | None = None
    chunk: Annotated[int, Field(ge=1, le=256)] = 64
    tau: Annotated[float, Field(ge=1.0)] = 16.0
    group: Annotated[int, Field(ge=1)] = 64

    def check(self, hidden_size: int) -> None:
        """Raise ``ConfigError`` for a group that does not divide the width of the model."""
        group = min(self.group, hidden_size)
        if hidden_size % group:
            raise ConfigError(
                f"the pdr mixer cannot norm {hidden_size} channels in groups of {group}; choose a group that divides "
                f"the model's hidden_size, the nearest is {divisors_near(group, hidden_size)}."
            ).within("group")

    def parameters(self, hidden_size: int) -> Mapping[str, int]:
        """Parameters of one layer by role: 3 d^2 + 2 r d and the bias of the decay, and the norm of what is read."""
        rank = self.rank or max(1, hidden_size // 16)
        return {"attention": 3 * hidden_size**2 + 2 * rank * hidden_size + hidden_size, "norm": hidden_size}
