"""Over-refusal: what is legitimate is rather answered than refused, by a margin."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch.nn import functional

from ...core.training.terms import LossContext, LossSetup
from .options import OverRefusalConfig


class OverRefusal:
    """Mean over the optimiser step's legitimate rows of
    softplus(log p(y_ref|x) / |y_ref| - log p(y_help|x) / |y_help| + margin).

    y_help is what should be said and y_ref the refusal that should not be; rows without one do not count. It is a
    smooth hinge on a difference per token, which fades once help is likelier by more than the margin (SPEC 2B.6).
    """

    over_pairs = True

    def __init__(self, config: OverRefusalConfig, setup: LossSetup) -> None:
        self._config = config

    def __call__(self, ctx: LossContext) -> torch.Tensor:
        pairs = ctx.pairs
        assert pairs is not None, "build_trainer lets terms over pairs into contrast steps only"
        value = functional.softplus(pairs.rejected.mean() - pairs.chosen.mean() + self._config.margin)
        return pairs.mean_over(value, self._config.kinds, paired=True)

    def after_step(self) -> None:
        """Nothing is kept."""

    def state_dict(self) -> Mapping[str, torch.Tensor]:
        return {}

    def load_state_dict(self, state: Mapping[str, torch.Tensor]) -> None:
        """Nothing is kept."""
