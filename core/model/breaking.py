"""Symmetry breakers: what makes identical experts different, and how far that may move the model.

Clones do not part by themselves. With a gate whose value is always 1 the router of identical experts gets no gradient
(SPEC E3.3), and the cosine of two equal weights is at its maximum, where its gradient is 0, so that a diversity loss
does not see them either (SPEC E3.2).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import nn

from ...registry.errors import ConfigError
from .parameters import expert_parameters
from .router import RouterBase

Kind = Literal["drop", "noise"]
HALVINGS = 10
#: Noise on the routers of a model that has grown, as a share of their deviation: enough to tell copies apart in bf16.
TIES = 0.01
_GATE_UP, _DOWN = ".gate_up_proj", ".down_proj"


@dataclass(frozen=True, slots=True, kw_only=True)
class Drift:
    """What a breaker did to a model: perplexities ``before`` upcycling, ``cloned`` and ``broken``, the strength that
    was ``asked`` for and the one ``used``, and the ``bound`` on the relative increase."""

    before: float
    cloned: float
    broken: float
    asked: float
    used: float
    bound: float

    @property
    def increase(self) -> float:
        """By what share the perplexity rose above the one before: 0.05 is 5 %."""
        return self.broken / self.before - 1.0

    @property
    def within(self) -> bool:
        """Whether the bound holds; false for an increase that is no number."""
        return self.increase <= self.bound


def noise(stacked: torch.Tensor, scale: float, generator: torch.Generator) -> torch.Tensor:
    """Matrices (E, R, C) plus ``scale`` times the standard deviation of each one's entries times a normal draw.

    Equal states of ``generator`` give the same draws at every scale. SPEC 2A.3 has a scale of 0.01.
    """
    _check("The scale of the noise", scale, math.inf)
    spread = stacked.std(dim=(-2, -1), keepdim=True, correction=0)  # shape: (E, 1, 1)
    return stacked + scale * spread * _normal(stacked, generator)


def drop(
    gate_up: torch.Tensor, down: torch.Tensor, share: float, generator: torch.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    """Experts (E, 2I, H) and (E, H, I) of which a random ``share`` of the I intermediate units begins anew.

    Each expert loses units of its own: their gate rows, up rows and down columns are drawn from a normal distribution
    with the mean and the standard deviation of the entries of that expert's gate, up or down matrix (Drop-Upcycling:
    Nakamura 2025, 2502.19261). Equal states of ``generator`` give nested choices: a smaller share drops some of the
    units of a larger one and draws the same values for them.
    """
    _check("The share of units to drop", share, 1.0)
    experts, _, width = down.shape
    rank = torch.rand(experts, width, generator=generator).argsort(1).argsort(1)  # shape: (E, I)
    chosen = (rank < round(share * width)).to(down.device)
    gate, up = gate_up.chunk(2, dim=1)  # shape: 2 times (E, I, H)
    gate = torch.where(chosen[:, :, None], _anew(gate, generator), gate)
    up = torch.where(chosen[:, :, None], _anew(up, generator), up)
    return torch.cat([gate, up], dim=1), torch.where(chosen[:, None, :], _anew(down, generator), down)


@torch.no_grad()
def break_experts(model: nn.Module, kind: Kind, strength: float, *, seed: int, spare: int | None = None) -> None:
    """Make the experts of a model different, in place: ``strength`` is the share of ``drop`` or the scale of ``noise``
    (gate, up and down are matrices of their own).

    ``spare`` is for a model that has grown by so many copies of every expert: the first of them stays as it is, and
    what routers know of the others, rows of parameters (E, ...), gets noise too, at most ``TIES``. Copies with equal
    rows are tied for every token, and the same one would always win. Equal seeds give the same draws at every strength.
    Raises ``ConfigError`` for a model without stacked experts in the layout gate|up and down.
    """
    names = [name.removesuffix(_GATE_UP) for name in expert_parameters(model) if name.endswith(_GATE_UP)]
    if not names:
        raise ConfigError(
            f"{type(model).__name__} has no stacked experts to make different; upcycle it first, or choose a family "
            "whose experts are gate_up_proj and down_proj."
        )
    generator = torch.Generator().manual_seed(seed)
    for name in names:
        gate_up, down = model.get_parameter(name + _GATE_UP), model.get_parameter(name + _DOWN)
        if kind == "drop":
            broken = drop(gate_up, down, strength, generator)
        else:
            gate, up = (noise(part, strength, generator) for part in gate_up.chunk(2, dim=1))
            broken = torch.cat([gate, up], dim=1), noise(down, strength, generator)
        chosen = [expert for expert in range(len(down)) if spare is None or expert % spare]
        for parameter, value in zip((gate_up, down), broken, strict=True):
            parameter[chosen] = value[chosen]
    if spare is None:
        return
    for parameter in _rows(model):
        others = torch.arange(len(parameter)) % spare != 0
        parameter[others] = noise(parameter[None], min(strength, TIES), generator)[0][others]


@torch.no_grad()
def bounded_break(
    model: nn.Module,
    strength: float,
    bound: float,
    measure: Callable[[Any], float],
    apply: Callable[[Any, float], None],
    *,
    before: float | None = None,
) -> Drift:
    """Break the symmetry of cloned experts as hard as the bound on drift allows, in place.

    ``apply(model, strength)`` does what ``break_experts`` does, with the same draws at every strength;
    ``measure(model)`` gives nats per token, and ``before`` those of the dense model (None: as after cloning). While the
    perplexity is more than ``bound`` (0.05 is 5 %) above that of ``before``, the clones are put back and the strength
    is halved, ten times at most; after that the weakest attempt stays, and the report says that it is not within the
    bound.
    """
    weights = [*(model.get_parameter(name) for name in expert_parameters(model)), *_rows(model)]
    clones = [weight.clone() for weight in weights]
    cloned = _perplexity(measure(model))
    used = strength
    for halving in range(HALVINGS + 1):
        if halving:
            used /= 2
            for weight, clone in zip(weights, clones, strict=True):
                weight.copy_(clone)
        apply(model, used)
        drift = Drift(
            before=cloned if before is None else _perplexity(before),
            cloned=cloned,
            broken=_perplexity(measure(model)),
            asked=strength,
            used=used,
            bound=bound,
        )
        if drift.within:
            break
    return drift


def _rows(model: nn.Module) -> list[nn.Parameter]:
    """The parameters of our own routers with a row for every expert, shape (E, ...)."""
    return [
        parameter
        for router in model.modules()
        if isinstance(router, RouterBase)
        for parameter in router.parameters(recurse=False)
        if parameter.ndim > 1 and len(parameter) == router.num_experts
    ]


def _normal(like: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Normal draws, made on the CPU so that every device gets the same ones."""
    return torch.randn(like.shape, generator=generator).to(like)


def _anew(matrix: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Draws with the mean and the standard deviation of each matrix. shape: (E, R, C) -> (E, R, C)"""
    mean = matrix.mean(dim=(-2, -1), keepdim=True)
    return mean + matrix.std(dim=(-2, -1), keepdim=True, correction=0) * _normal(matrix, generator)


def _perplexity(nats: float) -> float:
    return math.exp(min(nats, 700.0))  # exp overflows beyond; NaN stays NaN


def _check(what: str, value: float, most: float) -> None:
    if not 0.0 <= value <= most:
        raise ConfigError(f"{what} is {value}, but must be from 0 to {most}.")
