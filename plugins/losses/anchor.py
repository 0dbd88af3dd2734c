"""Keeping a safety anchor in force while the model goes on learning."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from ...core.model.companions import companions_of
from ...core.training.terms import LossContext, LossSetup
from ...registry.errors import ConfigError
from .options import AnchorLossConfig


class AnchorPenalty:
    """The penalty of the model's safety anchor: 0 while the anchor sees what it saw when it was captured.

    It does not look at the batch: every micro-batch of an optimiser step has the same value, which the trainer weighs
    by the micro-batch's share of tokens, so the step's term is the penalty however the step is split.
    """

    def __init__(self, config: AnchorLossConfig, setup: LossSetup) -> None:
        guard = companions_of(setup.model).get("anchor")
        if guard is None:
            raise ConfigError(
                "the loss 'anchor' holds a safety anchor in place, and this model has none; capture one in an earlier "
                "step (objective: anchor) or remove the loss"
            )
        self._anchor = guard.anchor
        self._model = setup.model

    def __call__(self, ctx: LossContext) -> torch.Tensor:
        value: torch.Tensor = self._anchor.penalty(self._model, ctx.step)
        return value

    def after_step(self) -> None:
        """Nothing is kept."""

    def state_dict(self) -> Mapping[str, torch.Tensor]:
        return {}

    def load_state_dict(self, state: Mapping[str, torch.Tensor]) -> None:
        """Nothing is kept."""
