"""Loss terms: what a loss component sees, and what the trainer needs to know of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import torch
    from torch import nn

    from ..config.schema import Weight
    from .pairs import Pairs
    from .routing import RoutedTokens


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RouterRecord:
    """One call of one router: N tokens, E experts, k chosen."""

    name: str
    layer: int
    module: nn.Module
    logits: torch.Tensor  # shape: (N, E)
    weights: torch.Tensor  # shape: (N, k)
    index: torch.Tensor  # shape: (N, k), int64
    hidden: torch.Tensor | None = None  # shape: (N, H), what the router read


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LossContext:
    """All a loss term may look at: router records of the task batch and of the replay batch together,
    one token mask and one domain id per token (-1 where unknown), both answers of the task's rows in a contrast step,
    and where training stands."""

    model: nn.Module
    records: Sequence[RouterRecord]  # one per router layer, tokens of all forwards concatenated
    mask: torch.Tensor  # shape: (N,), bool; False for padding
    domain: torch.Tensor  # shape: (N,), int64; index into domains, -1 unknown
    domains: tuple[str, ...]
    step: int
    progress: float  # share of the step's optimiser steps done, in [0, 1]
    routing: RoutedTokens | None = None  # the records stacked once for all terms; read it through ``routed(ctx)``
    pairs: Pairs | None = None
    follows: torch.Tensor | None = None  # shape: (N,), bool; whether a token comes after the one before it in its text


@dataclass(frozen=True, slots=True, kw_only=True)
class LossSetup:
    """What is known when a loss component is built. ``parent`` gives the model that the phase started from, frozen."""

    model: nn.Module
    domains: tuple[str, ...]
    experts: int
    top_k: int
    layers: int
    world_size: int
    accumulate: int
    parent: Callable[[], nn.Module] | None = None


class Loss(Protocol):
    """A loss component: built once per step as ``target(config, setup)``, called in every forward with gradient.

    The value is a mean over the context's valid tokens, which the trainer weights by the micro-batch's share of the
    tokens of the optimiser step (see ``RoutedTokens``). A class with ``over_pairs = True`` reads ``ctx.pairs`` instead
    and gives this micro-batch's part of a mean over the rows of the optimiser step (see ``Pairs.mean_over``), which is
    added up as it is. ``after_step`` runs after each optimiser step.
    ``state_dict`` is saved with the trainer checkpoint and restored before training resumes (tensors by name), which
    is what keeps a resume exact. A class may name further numbers to log in ``facts``; after each call ``told`` then
    holds them in that order, as detached scalars that are means over the same tokens as the value.
    """

    def __call__(self, ctx: LossContext) -> torch.Tensor: ...

    def after_step(self) -> None: ...

    def state_dict(self) -> Mapping[str, torch.Tensor]: ...

    def load_state_dict(self, state: Mapping[str, torch.Tensor]) -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class WeightedLoss:
    """A loss component under its name in the experiment, with its weight schedule."""

    name: str
    loss: Loss
    weight: Weight | float
    options: Mapping[str, Any]

    @property
    def facts(self) -> tuple[str, ...]:
        """Names of further numbers that the term tells of itself."""
        return tuple(getattr(self.loss, "facts", ()))

    def told(self) -> list[torch.Tensor]:
        """Those numbers as of the last call, in that order."""
        return list(getattr(self.loss, "told", ())) if self.facts else []

    @property
    def over_pairs(self) -> bool:
        """Whether the term is a mean over rows with two answers, and not over tokens."""
        return bool(getattr(self.loss, "over_pairs", False))
