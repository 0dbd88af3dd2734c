"""Small deltas: experts that differ little become neighbours on the torus, or neighbours become alike."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch

from ...core.model.distances import code_distances, expert_distances, experts_by_layer
from ...core.model.parameters import expert_parameters
from ...core.model.quantization import encode_experts, quantization_of
from ...core.training.terms import LossContext, LossSetup
from ...registry.errors import ConfigError
from ..routers.geometry import wrap
from .on_torus import need_positions, neighbours, once
from .options import ExpertDeltaConfig


class ExpertDelta:
    """What a move from an expert to its neighbour costs in changed weights (SPEC 2A.10).

    ``positions``, for frozen experts: sum_ij K_ij D_ij / sum_ij K_ij over i != j, K_ij = exp(-d_T(z_i, z_j)^2 / 2 s^2),
    s the spacing of the lattice (the mean of 1 / side over its sides above 1), and D_ij the share of ternary codes in
    which experts i and j differ, over all weights of all layers; for a model without a quantizer mean |W_i - W_j| /
    mean |W|. D is computed once, and the gradient moves positions only. (The original takes the L1 distance of the
    weights here, whose gradient is zero for all that is trained, since experts are frozen: SPEC E3.22.) Raises
    ``ConfigError`` at the first call where experts train: D would be that of their weights at that moment, and a run
    that is resumed would go on with another.

    ``weights``, for experts that are trained: the mean of |W_i - W_j| over neighbours and all their latent weights. (A
    sum, as in the original, is some 10^7 times the task loss.) Only neighbours are pulled
    together; let ``diversity`` take ``pairs: non-neighbours`` beside it (SPEC E3.24).

    Both depend on weights alone. It tells the ``density``: the mean of D over neighbours; for ``weights`` its value
    over mean |W|.
    """

    facts: ClassVar[tuple[str, ...]] = ("density",)

    def __init__(self, config: ExpertDeltaConfig, setup: LossSetup) -> None:
        if setup.experts < 2:
            raise ConfigError("the loss 'expert-delta' needs a model with experts to compare; remove it from the step")
        self._model = setup.model
        self._differences: torch.Tensor | None = None  # shape: (E, E)
        self.told: list[torch.Tensor] = []
        if config.mode == "positions":
            self._routers = once(need_positions(setup, "expert-delta"))
            self._sites = [router.edges() for router in self._routers]  # positions move, sites do not
        else:
            self._edges = neighbours(setup, "expert-delta")
        self._mode = config.mode

    def __call__(self, ctx: LossContext) -> torch.Tensor:
        return self._of_positions() if self._mode == "positions" else self._of_weights()

    def _of_positions(self) -> torch.Tensor:
        values, densities = [], []
        for router, sites in zip(self._routers, self._sites, strict=True):
            positions = router.positions.float()  # shape: (E, 3)
            if self._differences is None:
                _need_frozen(self._model)
                self._differences = _differences(self._model)
            differences = self._differences = self._differences.to(positions.device)
            one, other = torch.triu_indices(len(positions), len(positions), offset=1, device=positions.device)
            squared = wrap(positions[one] - positions[other]).square().sum(-1)
            # A softmax over pairs is K / sum K, and cannot underflow to 0 / 0 where all experts are far apart.
            closeness = (squared / (-2 * _spacing(router.grid) ** 2)).softmax(0)
            values.append(closeness @ differences[one, other])
            edges = sites.to(positions.device)
            densities.append(differences[edges[:, 0], edges[:, 1]].mean())
        self.told = [torch.stack(densities).mean()]
        return torch.stack(values).mean()

    def _of_weights(self) -> torch.Tensor:
        totals, magnitudes = [], []
        differences = sizes = 0
        for layer, names in experts_by_layer(self._model).items():
            edges = self._edges[layer]
            for weight in map(self._model.get_parameter, names):
                totals.append(_neighbour_difference(weight, edges))
                magnitudes.append(weight.detach().abs().sum(dtype=torch.float32))
                differences += len(edges) * weight[0].numel()
                sizes += weight.numel()
        value = torch.stack(totals).sum() / max(1, differences)
        self.told = [value.detach() * sizes / torch.stack(magnitudes).sum().clamp(min=1e-30)]
        return value

    def after_step(self) -> None:
        """Nothing is kept."""

    def state_dict(self) -> Mapping[str, torch.Tensor]:
        """Nothing: the experts that D compares are frozen and saved with the model."""
        return {}

    def load_state_dict(self, state: Mapping[str, torch.Tensor]) -> None:
        self._differences = None


def _need_frozen(model: torch.nn.Module) -> None:
    if any(model.get_parameter(name).requires_grad for name in expert_parameters(model)):
        raise ConfigError(
            "the loss 'expert-delta' with mode: positions compares the experts once and for all, but this step trains "
            "them; freeze them with freeze: [experts], or choose mode: weights"
        )


def _differences(model: torch.nn.Module) -> torch.Tensor:
    """How much any two experts differ, as a share, shape (E, E), fp32."""
    if quantization_of(model) is not None:
        return code_distances(encode_experts(model))
    names = [name for names in experts_by_layer(model).values() for name in names]
    weights = [model.get_parameter(name).detach() for name in names]
    total = sum(float(weight.abs().sum(dtype=torch.float32)) for weight in weights)
    return expert_distances(model) * (sum(weight.numel() for weight in weights) / max(total, 1e-30))


def _spacing(grid: Any) -> float:
    sides = [int(side) for side in grid if side > 1]
    return sum(1 / side for side in sides) / len(sides) if sides else 1.0


def _neighbour_difference(weight: torch.Tensor, edges: torch.Tensor) -> torch.Tensor:
    """Sum of |W_i - W_j| over edges (M, 2) and weights (E, ...), which keeps one copy of the weights and not M."""
    slope = torch.zeros_like(weight, dtype=torch.float32)
    total = torch.zeros((), dtype=torch.float32, device=weight.device)
    with torch.no_grad():
        for one, other in edges.tolist():
            difference = weight[one].float() - weight[other].float()
            total += difference.abs().sum()
            slope[one] += difference.sign()
            slope[other] -= difference.sign()
    through = (slope * weight).sum()
    return total + through - through.detach()
