"""What training changed in the weights: how much, how wide and where, from one model to another (SPEC 2C)."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import torch
from torch import nn

from .parameters import expert_parameters, layer_of, roles_of

#: Multiply-adds of one singular value decomposition, and of all of one comparison (m n min(m, n) for m x n).
MATRIX_CAP, TOTAL_CAP = 2**30, 2**36
#: Dimensions of the subspaces between which angles are measured.
SUBSPACE = 8
_THIRDS = ("first", "middle", "last")


@dataclass(slots=True, kw_only=True)
class _Group:
    """Sums over the parameters of one group."""

    parameters: int = 0
    before: float = 0.0  # ||W||^2
    change: float = 0.0  # ||dW||^2
    ranks: list[float] = field(default_factory=list)
    shares: list[float] = field(default_factory=list)
    noise: list[float] = field(default_factory=list)
    unranked: int = 0

    def row(self, total: float, **facts: Any) -> dict[str, Any]:
        return {
            **facts,
            "parameters": self.parameters,
            "relative": _ratio(math.sqrt(self.change), math.sqrt(self.before)),
            "share": _ratio(self.change, total),
            "effective_rank": _mean(self.ranks),
            "rank_share": _mean(self.shares),
            "noise_share": _mean(self.noise),
            "matrices": len(self.ranks),
            "unranked": self.unranked,
        }


def weight_changes(before: nn.Module, after: nn.Module) -> dict[str, Any]:
    """Compare two models and return JSON-able data with six significant digits.

    ``groups`` has a row per layer (-1: outside of layers) and role, ``roles`` per role, ``experts`` per layer and
    expert: ``relative`` = ||dW|| / ||W||, ``share`` of the whole ||dW||^2, and over the group's changed matrices (every
    expert's is one) the mean ``effective_rank`` of dW, exp of the entropy of its normalised singular values (Roy and
    Vetterli 2007, EUSIPCO), with ``rank_share``, its part of the full rank min(m, n), beside ``noise_share``, that of
    Gaussian noise of the same shape, which no direction stands out in. Matrices beyond ``MATRIX_CAP``, and those that
    come after ``TOTAL_CAP`` is used up, are counted as ``unranked``. ``depth`` gives the share of
    ||dW||^2 in the first, middle and last third of layers and ``outside`` of them; ``parameters_by_depth`` gives the
    same shares of all parameters, which is where an even change would lie. Parameters that only one model has are
    ``added`` and ``removed``, or ``renamed`` where shape and bits are the same; ``reshaped`` ones are not compared.
    """
    old, new = dict(before.named_parameters()), dict(after.named_parameters())
    roles, stacked = roles_of(after), set(expert_parameters(after))
    shared = [name for name in new if name in old and old[name].shape == new[name].shape]
    groups: dict[tuple[int, str], _Group] = {}
    experts: dict[tuple[int, int], _Group] = {}
    spent, changed = 0, 0
    with torch.no_grad():
        for name in shared:
            weights = old[name].detach().cpu().double()
            delta = new[name].detach().cpu().double() - weights
            group = groups.setdefault((layer_of(name), roles[name]), _Group())
            cost = _cost(delta.shape, name in stacked)
            rankable = 0 < cost <= TOTAL_CAP - spent and _cost(delta.shape[-2:], False) <= MATRIX_CAP
            spent += cost if rankable else 0
            changed += bool(delta.any())
            _add(group, weights, delta, rankable)
            if name in stacked:
                for expert in range(len(delta)):
                    part = experts.setdefault((layer_of(name), expert), _Group())
                    part.parameters += delta[expert].numel()
                    part.before += float(weights[expert].square().sum())
                    part.change += float(delta[expert].square().sum())
    total = math.fsum(group.change for group in groups.values())
    return {
        "relative": _ratio(math.sqrt(total), math.sqrt(math.fsum(group.before for group in groups.values()))),
        "tensors": len(shared),
        "changed": changed,
        "roles": [group.row(total, role=role) for role, group in sorted(_by_role(groups).items())],
        "groups": [group.row(total, layer=layer, role=role) for (layer, role), group in sorted(groups.items())],
        "experts": [
            {
                "layer": layer,
                "expert": expert,
                "relative": _ratio(math.sqrt(part.change), math.sqrt(part.before)),
                "share": _ratio(part.change, total),
            }
            for (layer, expert), part in sorted(experts.items())
        ],
        "depth": _by_depth({key: group.change for key, group in groups.items()}),
        "parameters_by_depth": _by_depth({key: float(group.parameters) for key, group in groups.items()}),
        **_named(old, new, shared),
    }


def effective_rank(matrices: torch.Tensor) -> torch.Tensor:
    """exp of the entropy of normalised singular values: 1 for a rank-one matrix, n for an orthogonal one; NaN for
    zero. shape: (..., m, n) -> (...)"""
    values = torch.linalg.svdvals(matrices)
    parts = values / values.sum(-1, keepdim=True)
    rank: torch.Tensor = torch.special.entr(parts).sum(-1).exp()
    return rank


def delta_overlap(start: nn.Module, middle: nn.Module, end: nn.Module) -> dict[str, Any]:
    """Compare the directions of two changes in a row, start -> middle and middle -> end, role by role.

    ``cosine`` is that of the flattened changes. ``outputs`` and ``inputs`` are mean squared cosines of the principal
    angles (Björck and Golub 1973) between the spaces of their first ``SUBSPACE`` left and right singular vectors: 1
    for the same space, ``chance`` = dimensions / size for random ones. ``smallest_angle`` in degrees is the median over
    matrices. Matrices that one of the changes left alone, or beyond ``MATRIX_CAP``, are not counted.
    """
    models = [dict(model.named_parameters()) for model in (start, middle, end)]
    roles, stacked = roles_of(end), set(expert_parameters(end))
    found: dict[str, list[tuple[float, ...]]] = {}
    products: dict[str, list[tuple[float, float, float]]] = {}
    with torch.no_grad():
        for name in models[2]:
            if not all(name in model and model[name].shape == models[2][name].shape for model in models):
                continue
            weights = [model[name].detach().cpu().double() for model in models]
            one, other = weights[1] - weights[0], weights[2] - weights[1]
            sums = (float((one * other).sum()), float(one.square().sum()), float(other.square().sum()))
            products.setdefault(roles[name], []).append(sums)
            if one.ndim == (3 if name in stacked else 2) and _cost(one.shape[-2:], False) <= MATRIX_CAP:
                pairs = zip(one.reshape(-1, *one.shape[-2:]), other.reshape(-1, *one.shape[-2:]), strict=True)
                rows = found.setdefault(roles[name], [])
                rows += [_angles(a, b) for a, b in pairs if bool(a.any()) and bool(b.any())]
    overlaps = [_overlap(role, products[role], found.get(role, [])) for role in sorted(products)]
    return {"dimensions": SUBSPACE, "roles": overlaps}


def _overlap(role: str, sums: list[tuple[float, float, float]], angles: list[tuple[float, ...]]) -> dict[str, Any]:
    inner, first, second = (math.fsum(column) for column in zip(*sums, strict=True))
    names = ("outputs", "inputs", "chance_outputs", "chance_inputs")
    means = {name: _mean([row[place] for row in angles]) for place, name in enumerate(names)}
    nearest = _rounded(statistics.median(row[4] for row in angles)) if angles else None
    cosine = _ratio(inner, math.sqrt(first * second))
    return {"role": role, "cosine": cosine, "matrices": len(angles), **means, "smallest_angle": nearest}


def _angles(one: torch.Tensor, other: torch.Tensor) -> tuple[float, ...]:
    k = min(SUBSPACE, *one.shape)
    (left, _, right), (left_too, _, right_too) = (
        torch.linalg.svd(matrix, full_matrices=False) for matrix in (one, other)
    )
    outputs = torch.linalg.svdvals(left[:, :k].T @ left_too[:, :k]).clamp(max=1.0)
    inputs = torch.linalg.svdvals(right[:k] @ right_too[:k].T).clamp(max=1.0)
    nearest = math.degrees(math.acos(max(float(outputs[0]), float(inputs[0]))))
    rows, columns = one.shape
    return (float(outputs.square().mean()), float(inputs.square().mean()), k / rows, k / columns, nearest)


def _add(group: _Group, weights: torch.Tensor, delta: torch.Tensor, rankable: bool) -> None:
    group.parameters += delta.numel()
    group.before += float(weights.square().sum())
    group.change += float(delta.square().sum())
    if delta.ndim < 2:
        return
    matrices = delta.reshape(-1, *delta.shape[-2:])
    moved = matrices[matrices.flatten(1).any(dim=1)]
    if not rankable:
        group.unranked += len(moved)
    elif len(moved):
        rows, columns = delta.shape[-2:]
        ranks = effective_rank(moved)
        group.ranks += ranks.tolist()
        group.shares += (ranks / min(rows, columns)).tolist()
        group.noise += [_noise_share(rows, columns)] * len(moved)


@cache
def _noise_share(rows: int, columns: int) -> float:
    noise = torch.randn(rows, columns, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    return float(effective_rank(noise)) / min(rows, columns)


def _cost(shape: torch.Size, stacked: bool) -> int:
    """Multiply-adds of the decompositions of a tensor; 0 for what is no matrix (nor a stack of experts')."""
    if len(shape) != (3 if stacked else 2):
        return 0
    return math.prod(shape) * min(shape[-2:])


def _by_role(groups: Mapping[tuple[int, str], _Group]) -> dict[str, _Group]:
    found: dict[str, _Group] = {}
    for (_, role), group in groups.items():
        whole = found.setdefault(role, _Group())
        whole.parameters += group.parameters
        whole.before += group.before
        whole.change += group.change
        whole.ranks += group.ranks
        whole.shares += group.shares
        whole.noise += group.noise
        whole.unranked += group.unranked
    return found


def _by_depth(values: Mapping[tuple[int, str], float]) -> dict[str, float | None]:
    """Shares of a sum by thirds of the layers; a model of one or two layers has no middle."""
    layers = 1 + max((layer for layer, _ in values), default=-1)
    sums = dict.fromkeys((*_THIRDS, "outside"), 0.0)
    for (layer, _), value in values.items():
        sums["outside" if layer < 0 else _THIRDS[_third(layer, layers)]] += value
    total = math.fsum(sums.values())
    return {name: _ratio(value, total) for name, value in sums.items()}


def _third(layer: int, layers: int) -> int:
    return min(2, 3 * layer // layers) if layers > 2 else 2 * layer


def _named(old: Mapping[str, nn.Parameter], new: Mapping[str, nn.Parameter], shared: list[str]) -> dict[str, Any]:
    added = [name for name in new if name not in old]
    removed = [name for name in old if name not in new]
    renamed: dict[str, str] = {}
    for name in removed:
        same = (
            other
            for other in added
            if other not in renamed.values()
            and new[other].shape == old[name].shape
            and torch.equal(new[other].detach().cpu(), old[name].detach().cpu())
        )
        other = next(same, None)
        if other is not None:
            renamed[name] = other
    return {
        "added": sorted(set(added) - set(renamed.values())),
        "removed": sorted(set(removed) - set(renamed)),
        "renamed": dict(sorted(renamed.items())),
        "reshaped": sorted(_reshaped(old, new, shared)),
    }


def _reshaped(old: Mapping[str, nn.Parameter], new: Mapping[str, nn.Parameter], shared: list[str]) -> Iterator[str]:
    same = set(shared)
    for name in new:
        if name in old and name not in same:
            yield f"{name} {tuple(old[name].shape)} -> {tuple(new[name].shape)}"


def _ratio(part: float, whole: float) -> float | None:
    return _rounded(part / whole) if whole else None


def _mean(values: list[float]) -> float | None:
    return _rounded(math.fsum(values) / len(values)) if values else None


def _rounded(value: float) -> float:
    # Singular values differ in their last digits with the number of threads; a repeat should write the same text.
    return float(f"{value:.6g}")
