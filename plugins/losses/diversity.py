"""Diversity: what experts have learnt since they were cloned points in different directions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch.utils.checkpoint import checkpoint

from ...core.model.companions import companions_of
from ...core.model.distances import ancestors, centred_cosines, experts_by_layer
from ...core.training.terms import LossContext, LossSetup
from ...registry.errors import ConfigError
from .on_torus import neighbours
from .options import DiversityConfig


class Diversity:
    """(1/|P|) sum over pairs in P of max(0, cos(D_i, D_j)), averaged over layers; D_i = vec(W_i) - vec(W_0), all of an
    expert's matrices end to end, and W_0 the weights that it was cloned from, or the mean of the layer's experts.

    P are all pairs or those that are no neighbours, without experts whose D is shorter than 1e-6. Centring matters:
    experts with a common ancestor have raw cosines near 1. The mean cosine cannot fall below -1 / (E - 1).

    The original *subtracts* the mean cosine from the loss, and minimising that pulls experts together: 0.36 -> 0.89
    under SGD, where this term does 0.30 -> -0.09 without its hinge (SPEC E3.1). At identical experts the gradient is
    zero under either sign, so clones have to be told apart by something else first (SPEC E3.2).

    A ``sketch`` hashes every D into so many numbers with random signs (count sketch: Charikar 2002; Weinberger 2009,
    0902.2206), which adds noise of about 1 / sqrt(sketch) to each cosine. The hash is drawn anew for every optimiser
    step: with a fixed one, experts learn to look apart in the sketch and stay together outside of it.

    The term depends on weights alone. Its backward pass computes every layer's D again and keeps none.
    """

    def __init__(self, config: DiversityConfig, setup: LossSetup) -> None:
        if setup.experts < 2:
            raise ConfigError("the loss 'diversity' needs a model with experts; remove it from the step")
        self._config, self._model = config, setup.model
        self._origin = companions_of(setup.model).get("origin")
        if config.centre == "clone" and self._origin is None:
            raise ConfigError(
                "the loss 'diversity' measures experts from what they were cloned from, and this model does not know "
                "it; set its option centre: mean, or upcycle a dense model first"
            )
        beside = neighbours(setup, "diversity") if config.pairs == "non-neighbours" else {}
        self._layers = experts_by_layer(setup.model)
        self._pairs = {layer: _pairs(setup.experts, beside.get(layer)) for layer in self._layers}

    def __call__(self, ctx: LossContext) -> torch.Tensor:
        values = []
        for layer, names in self._layers.items():
            stacks = [self._model.get_parameter(name) for name in names]
            pairs = self._pairs[layer].to(stacks[0].device)
            middles = None if self._config.centre == "mean" else ancestors(self._origin, layer, names)
            inputs = (stacks, middles, pairs, ctx.step)
            value: torch.Tensor = checkpoint(self._layer, *inputs, use_reentrant=False, preserve_rng_state=False)
            values.append(value)
        return torch.stack(values).mean()

    def _layer(
        self, stacks: Sequence[torch.Tensor], middles: Sequence[torch.Tensor] | None, pairs: torch.Tensor, step: int
    ) -> torch.Tensor:
        """The mean over one layer's pairs (E, E)."""
        if self._config.sketch:
            stacks, middles = self._sketched(stacks, middles, step)
        cosines, moved = centred_cosines(stacks, middles)
        counted = pairs & moved & moved[:, None]
        total = torch.where(counted, cosines.relu(), 0.0).sum()
        return total / counted.sum().clamp(min=1)

    def _sketched(
        self, stacks: Sequence[torch.Tensor], middles: Sequence[torch.Tensor] | None, step: int
    ) -> tuple[list[torch.Tensor], list[torch.Tensor] | None]:
        """Weights and what they are centred on, hashed into ``sketch`` numbers. shape: stacks × (E, ...) -> (E, sketch)
        in a list"""
        random = np.random.default_rng((self._config.seed, step))
        total = None
        for place, stack in enumerate(stacks):
            rows = stack.flatten(1).float()  # shape: (E, n)
            if middles is not None:
                rows = torch.cat([rows, middles[place].flatten()[None].to(rows)])
            bins = torch.from_numpy(random.integers(self._config.sketch, size=rows.shape[1])).to(rows.device)
            signs = torch.from_numpy(2 * random.integers(2, size=rows.shape[1]) - 1).to(rows)
            part = rows.new_zeros(len(rows), self._config.sketch).index_add(1, bins, rows * signs)
            total = part if total is None else total + part  # hashes of parts add up to a hash of the whole
        assert total is not None, "a layer of experts has weights"
        experts = len(stacks[0])
        return [total[:experts]], None if middles is None else [total[experts]]

    def after_step(self) -> None:
        """Nothing is kept."""

    def state_dict(self) -> Mapping[str, torch.Tensor]:
        return {}

    def load_state_dict(self, state: Mapping[str, torch.Tensor]) -> None:
        """Nothing is kept."""


def _pairs(experts: int, edges: torch.Tensor | None) -> torch.Tensor:
    """Pairs i < j without the ``edges`` (M, 2), which have the smaller first, as a mask. shape: (E, E), bool"""
    pairs = torch.ones(experts, experts, dtype=torch.bool).triu(1)
    if edges is not None:
        pairs[edges[:, 0], edges[:, 1]] = False
    return pairs
