"""Harm avoidance: what is harmful is answered safely, and not as was asked."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from ...core.training.terms import LossContext, LossSetup
from .options import HarmAvoidanceConfig


class HarmAvoidance:
    """Mean over the optimiser step's harmful rows of -log p(y_safe|x) / |y_safe| + unlikelihood * U(y_harm).

    y_safe is what should be said, y_harm what should not, and U(y) = -sum_t log(1 - p(y_t | x, y_<t)) / |y| over the
    tokens of y_harm from where it parts from y_safe; it is 0 for a row without y_harm (unlikelihood training: Welleck
    2019, 1908.04319; SPEC 2B.6). Both parts are per token, so that long answers weigh as much as short ones and this
    term can be weighed against ``over-refusal``.
    """

    over_pairs = True

    def __init__(self, config: HarmAvoidanceConfig, setup: LossSetup) -> None:
        self._config = config

    def __call__(self, ctx: LossContext) -> torch.Tensor:
        pairs = ctx.pairs
        assert pairs is not None, "build_trainer lets terms over pairs into contrast steps only"
        value = self._config.unlikelihood * pairs.rejected.unlikelihood(beside=pairs.chosen) - pairs.chosen.mean()
        return pairs.mean_over(value, self._config.kinds)

    def after_step(self) -> None:
        """Nothing is kept."""

    def state_dict(self) -> Mapping[str, torch.Tensor]:
        return {}

    def load_state_dict(self, state: Mapping[str, torch.Tensor]) -> None:
        """Nothing is kept."""
