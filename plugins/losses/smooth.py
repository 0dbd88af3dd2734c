"""Smooth routing: a text moves over the torus in small steps."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch

from ...core.training.routing import routed
from ...core.training.terms import LossContext, LossSetup
from ..routers.geometry import distance, hops
from .on_torus import following, need_positions, token_places
from .options import SmoothConfig


class Smooth:
    """(1/T) sum of d_T(z_t, z_t+1) over tokens that follow one another in a text, averaged over layers.

    T counts all valid tokens, also those that nothing follows, so that the term is exact under accumulation. Distances
    wrap around: the plain L2 of the original charges 0.98 for the step from 0.99 to 0.01, which is 0.02 (SPEC 2A.10).

    It tells the shares ``same``, ``one_hop``, ``two_hop`` and ``far`` of these steps by how many faces of the lattice
    lie between the experts chosen first; far is three and more. They are those within each text, averaged over texts by
    their tokens: so they are means over the tokens that the value is one over, and add up to 1 however many texts there
    are (a text of one token has no step, and takes its part from all four).
    """

    facts: ClassVar[tuple[str, ...]] = ("same", "one_hop", "two_hop", "far")

    def __init__(self, config: SmoothConfig, setup: LossSetup) -> None:
        need_positions(setup, "smooth")
        self._hops: dict[int, torch.Tensor] = {}  # by layer
        self.told: list[torch.Tensor] = []

    def __call__(self, ctx: LossContext) -> torch.Tensor:
        routing, pairs = routed(ctx), following(ctx)  # shape: (N - 1,)
        tokens, weights = (routing.tokens * routing.fraction).clamp(min=1), _weights(pairs)
        steps, shares = [], []
        for record in ctx.records:
            places = token_places(record, ctx.mask)
            apart = distance(places[:-1], places[1:])
            steps.append(torch.where(pairs, apart, 0.0).sum())
            shares.append(self._shares(record.layer, record.module, record.index[:, 0], weights))
        self.told = list(torch.stack(shares).mean(0) / tokens)
        return torch.stack(steps).mean() / tokens

    @torch.no_grad()
    def _shares(self, layer: int, router: Any, chosen: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
        """Sums of the weights (N - 1,) of steps by hops. shape: (N,), (N - 1,) -> (4,)"""
        if layer not in self._hops:
            sites = router.sites.cpu()
            self._hops[layer] = hops(tuple(router.grid))[sites][:, sites].to(chosen.device)
        between = self._hops[layer][chosen[:-1], chosen[1:]].clamp(max=3)
        counted = torch.arange(4, device=chosen.device)[:, None] == between
        return torch.where(counted, weights, 0.0).sum(1)

    def after_step(self) -> None:
        """Nothing is kept."""

    def state_dict(self) -> Mapping[str, torch.Tensor]:
        return {}

    def load_state_dict(self, state: Mapping[str, torch.Tensor]) -> None:
        """Nothing is kept."""


def _weights(pairs: torch.Tensor) -> torch.Tensor:
    """What every step counts so that those of a text of n tokens count n together: n / (n - 1), and 0 where none is.
    shape: (N - 1,), bool -> (N - 1,)"""
    text = (~pairs).cumsum(0)  # of the token after each step; a step that is none begins the next
    steps = torch.zeros(len(pairs) + 1, device=pairs.device).index_add_(0, text, pairs.float())[text]
    return torch.where(pairs, (steps + 1) / steps.clamp(min=1), 0.0)
