"""Domain helpfulness: professional questions keep their answers."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from ...core.training.terms import LossContext, LossSetup
from .options import DomainHelpfulnessConfig


class DomainHelpfulness:
    """Mean over the optimiser step's professional rows of -log p(y_help|x) / |y_help|, y_help being what should be
    said (SPEC 2B.6)."""

    over_pairs = True

    def __init__(self, config: DomainHelpfulnessConfig, setup: LossSetup) -> None:
        self._config = config

    def __call__(self, ctx: LossContext) -> torch.Tensor:
        pairs = ctx.pairs
        assert pairs is not None, "build_trainer lets terms over pairs into contrast steps only"
        return pairs.mean_over(-pairs.chosen.mean(), self._config.kinds)

    def after_step(self) -> None:
        """Nothing is kept."""

    def state_dict(self) -> Mapping[str, torch.Tensor]:
        return {}

    def load_state_dict(self, state: Mapping[str, torch.Tensor]) -> None:
        """Nothing is kept."""
