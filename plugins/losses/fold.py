"""Folding: experts move to where their tokens are, in place, and stay near where they began."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch

from ...core.training.routing import routed
from ...core.training.terms import LossContext, LossSetup
from ..routers.geometry import distance, wrap
from .on_torus import need_positions, once, token_places
from .options import FoldConfig


class Fold:
    """(1/T) sum_t d_T(sg z_t, z_e(t))^2 + anchor (1/E) sum_i d_T(z_i, z_i^0)^2, averaged over layers; e(t) is the
    expert that token t chose first, and z_i^0 the position that expert i began with.

    Only positions get a gradient. Its step on z_i is the fold operator z_i += rho wrap(z_t - z_i), as of online k-means
    (Lloyd 1982) and of the codebook loss (van den Oord 2017, 1711.00937); the second term is an elastic anchor. The
    number of experts stays and coordinates wrap around, so nothing is appended. (The original gives no formula.)

    It tells the ``drift``, the mean of d_T(z_i, z_i^0).
    """

    facts: ClassVar[tuple[str, ...]] = ("drift",)

    def __init__(self, config: FoldConfig, setup: LossSetup) -> None:
        need_positions(setup, "fold")
        self._anchor = config.anchor
        self.told: list[torch.Tensor] = []

    def __call__(self, ctx: LossContext) -> torch.Tensor:
        routing = routed(ctx)
        away = []
        for record in ctx.records:
            router: Any = record.module
            with torch.no_grad():
                places = token_places(record, ctx.mask)
            apart = _squared(places, router.positions[record.index[:, 0]])  # shape: (N,)
            away.append(torch.where(ctx.mask, apart, 0.0).sum())
        drifted, drifts = [], []
        for router in once([record.module for record in ctx.records]):
            drifted.append(_squared(router.positions, router.home).mean())
            drifts.append(distance(router.positions.detach().float(), router.home.float()).mean())
        self.told = [torch.stack(drifts).mean()]
        tokens = (routing.tokens * routing.fraction).clamp(min=1)
        return torch.stack(away).mean() / tokens + self._anchor * torch.stack(drifted).mean()

    def after_step(self) -> None:
        """Nothing is kept."""

    def state_dict(self) -> Mapping[str, torch.Tensor]:
        return {}

    def load_state_dict(self, state: Mapping[str, torch.Tensor]) -> None:
        """Nothing is kept."""


def _squared(points: torch.Tensor, others: torch.Tensor) -> torch.Tensor:
    """d_T^2 without a root, whose slope at 0 is infinite. shape: (..., 3), (..., 3) -> (...)"""
    return wrap(points.float() - others.float()).square().sum(-1)
