"""How far apart a model's experts are: in their weights, in their codes, and in the direction they were moved to."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from ...registry.errors import ConfigError
from .parameters import expert_parameters, layer_of
from .quantizer import Codes

#: Length of a difference below which it has no direction.
SMALLEST = 1e-6
_COLUMNS = 2**16  # at a time: sums in fp32 keep their precision, counts are exact


def experts_by_layer(model: nn.Module) -> dict[int, list[str]]:
    """Names of the stacked expert parameters of every layer that has some, layers ascending.

    Raises ``ConfigError`` for a model without experts.
    """
    names = expert_parameters(model)
    if not names:
        raise ConfigError(f"{type(model).__name__} has no experts to compare; upcycle it or build a sparse model first")
    layers: dict[int, list[str]] = {}
    for name in names:
        layers.setdefault(layer_of(name), []).append(name)
    return dict(sorted(layers.items()))


@torch.no_grad()
def expert_distances(model: nn.Module) -> torch.Tensor:
    """Mean |W_i - W_j| over the latent expert weights of all layers, shape (E, E), fp32 (SPEC 2A.8).

    Raises ``ConfigError`` for a model without experts, or with unlike numbers of them.
    """
    names = [name for names in experts_by_layer(model).values() for name in names]
    return _mean_distance((model.get_parameter(name) for name in names), p=1.0)


@torch.no_grad()
def code_distances(codes: Mapping[str, Codes]) -> torch.Tensor:
    """Share of ternary codes in which two experts differ, over all weights of all layers, shape (E, E), fp32; scales
    do not count. Raises ``ConfigError`` where the numbers of experts differ."""
    return _mean_distance((part.trits for part in codes.values()), p=0.0)


def _mean_distance(stacks: Iterable[torch.Tensor], p: float) -> torch.Tensor:
    """Mean over columns of what ``torch.cdist`` sums. shape: stacks × (E, ...) -> (E, E)"""
    total, columns = None, 0
    for chunk in (chunk for stack in stacks for chunk in _chunks(stack)):
        part = torch.cdist(chunk, chunk, p=p).cpu().double()
        if total is not None and total.shape != part.shape:
            raise ConfigError(
                f"some layers of this model have {len(total)} experts and some {len(part)}, so they cannot be compared "
                "over layers; use one expert count in all layers"
            )
        total = part if total is None else total + part
        columns += chunk.shape[1]
    if total is None:
        raise ConfigError("there are no expert weights to compare; use a model with experts")
    return (total / columns).float()


def _chunks(stack: torch.Tensor) -> Iterator[torch.Tensor]:
    """shape: (E, ...) -> parts × (E, at most _COLUMNS), fp32"""
    for chunk in torch.split(stack.flatten(1), _COLUMNS, dim=1):
        yield chunk.float()


def ancestors(origin: Any, layer: int, names: Sequence[str]) -> list[torch.Tensor]:
    """What the experts of a layer were cloned from by the companion ``origin``, one tensor per parameter name."""
    gate_up, down = origin.centre(layer)
    by_name = {"gate_up_proj": gate_up, "down_proj": down}
    return [by_name[name.rpartition(".")[2]] for name in names]


def centred_cosines(
    stacks: Sequence[torch.Tensor], centres: Sequence[torch.Tensor] | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """cos(D_i, D_j) of one layer's experts, shape (E, E), fp32, with gradient; and which experts have a direction at
    all (length of D at least 1e-6), shape (E,), bool.

    D_i = vec(W_i) - vec(centre), over all ``stacks`` (E, ...) end to end; without ``centres``, one per stack, the
    centre is the mean of the experts. Experts that were cloned share an ancestor, so without centring every cosine
    stays near 1 (SPEC 2A.5). Where W_i is the centre, its cosines are 0.
    """
    gram: torch.Tensor | None = None
    for place, stack in enumerate(stacks):
        flat = stack.flatten(1).float()  # shape: (E, n)
        centre = flat.mean(0) if centres is None else centres[place].flatten().to(flat)
        moved = flat - centre
        part = moved @ moved.T
        gram = part if gram is None else gram + part
    if gram is None:
        raise ConfigError("there are no expert weights to compare; use a model with experts")
    squares = gram.diagonal()
    moved_at_all = squares.detach() >= SMALLEST**2
    # The slope of a length is infinite at 0, and 0 * inf is no number.
    scale = torch.where(moved_at_all, squares, 1.0).rsqrt() * moved_at_all
    return gram * scale[:, None] * scale, moved_at_all
