"""One micro-batch seen by the routers: logits, probabilities and counts of all layers, stacked once for all readers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from ...registry.errors import ConfigError

if TYPE_CHECKING:
    from .terms import LossContext, RouterRecord


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RoutedTokens:
    """What L routers did with N tokens, in fp32, and how these tokens weigh in their optimiser step.

    A *slot* is a token's domain id, or D for an unknown domain, or D + 1 for padding. ``counts`` and ``sums`` have
    all D + 2 slots; the last one is read by nobody. ``tokens`` and ``domain_tokens`` count the valid tokens of the
    *whole* optimiser step, over all micro-batches and processes, and ``fraction`` is this micro-batch's share of
    them. The trainer multiplies a term by ``fraction`` and adds micro-batches up, so a term that is linear in
    ``mean()`` or ``domain_means()`` has the same value and gradient however the step is split (up to the order of
    fp32 additions).
    """

    logits: torch.Tensor  # shape: (L, N, E), with gradient
    probabilities: torch.Tensor  # shape: (L, N, E), softmax of the logits, with gradient
    slots: torch.Tensor  # shape: (N,), int64
    valid: torch.Tensor  # shape: (N,), fp32, 0 for padding
    counts: torch.Tensor  # shape: (L, D + 2, E), chosen experts, without gradient
    sums: torch.Tensor  # shape: (L, D + 2, E), sum of probabilities, with gradient
    membership: torch.Tensor  # shape: (D + 2, N), one-hot slots
    tokens: torch.Tensor  # shape: ()
    domain_tokens: torch.Tensor  # shape: (D,)
    fraction: torch.Tensor  # shape: ()

    def mean(self) -> torch.Tensor:
        """Mean routing probability over this micro-batch's valid tokens, shape (L, E)."""
        total: torch.Tensor = self.sums[:, :-1].sum(1) / (self.tokens * self.fraction)
        return total

    def domain_means(self) -> torch.Tensor:
        """Mean routing probability per domain, shape (L, D, E), scaled so that ``fraction``-weighted micro-batches
        add up to the mean over all of the domain's tokens in the optimiser step."""
        weight = (self.domain_tokens.clamp(min=1) * self.fraction)[:, None]
        means: torch.Tensor = self.sums[:, :-2] / weight
        return means


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class StepTokens:
    """Valid tokens of one micro-batch and of its whole optimiser step."""

    own: torch.Tensor  # shape: (D + 1,), by domain, the last one for unknown domains
    step: torch.Tensor  # shape: (D + 1,)


def tokens_by_domain(domain: torch.Tensor, mask: torch.Tensor | None, length: int, domains: int) -> torch.Tensor:
    """Valid tokens per domain, shape (D + 1,), fp32; rows of unknown domain (negative or too high) are the last.

    ``domain`` is per row, shape (B,); ``mask`` (B, T) or None where every one of ``length`` tokens is valid.
    """
    slot = torch.where((domain < 0) | (domain >= domains), domains, domain)
    weight = torch.full_like(slot, length, dtype=torch.float32) if mask is None else mask.sum(1, dtype=torch.float32)
    return torch.zeros(domains + 1, dtype=torch.float32, device=slot.device).scatter_add_(0, slot, weight)


def route(
    records: Sequence[RouterRecord], mask: torch.Tensor | None, domain: torch.Tensor, domains: int, tokens: StepTokens
) -> RoutedTokens:
    """Stack the routers' records once. ``mask`` (N,) bool or None (no padding), ``domain`` (N,) per token.

    Raises ``ConfigError`` where layers differ in their number of experts or do not see every token.
    """
    shapes = {tuple(record.logits.shape) for record in records}
    if len(shapes) != 1 or next(iter(shapes))[0] != domain.numel():
        raise ConfigError(
            f"the routers of this model saw (tokens, experts) = {sorted(shapes)} for {domain.numel()} tokens, and "
            "routing terms need every router to see every token and to choose among the same number of experts; "
            "remove the losses of this step or use one expert count in all layers"
        )
    logits = torch.stack([record.logits for record in records]).float()  # shape: (L, N, E)
    slots = torch.where((domain < 0) | (domain >= domains), domains, domain)
    if mask is not None:
        slots = torch.where(mask, slots, domains + 1)
        # Padding must not reach a term even as 0 * inf.
        logits = torch.where(mask[:, None], logits, 0.0)
    probabilities = logits.softmax(-1)
    layers, _, experts = logits.shape
    membership = (torch.arange(domains + 2, device=slots.device)[:, None] == slots).to(torch.float32)
    with torch.no_grad():
        index = torch.stack([record.index for record in records])  # shape: (L, N, k)
        offset = torch.arange(layers, device=slots.device)[:, None, None] * ((domains + 2) * experts)
        flat = (index + (slots * experts)[None, :, None] + offset).view(-1)
        counts = torch.zeros(layers * (domains + 2) * experts, dtype=torch.float32, device=slots.device)
        counts.scatter_add_(0, flat, torch.ones_like(flat, dtype=torch.float32))
    total = tokens.step.sum()
    return RoutedTokens(
        logits=logits,
        probabilities=probabilities,
        slots=slots,
        valid=(slots <= domains).to(torch.float32),
        counts=counts.view(layers, domains + 2, experts),
        sums=membership @ probabilities,
        membership=membership,
        tokens=total,
        domain_tokens=tokens.step[:-1],
        fraction=tokens.own.sum() / total,
    )


def routed(ctx: LossContext) -> RoutedTokens:
    """The stacked view of a context: the trainer's, or built here for a context made by hand (one micro-batch is
    then the whole optimiser step)."""
    if ctx.routing is not None:
        return ctx.routing
    domains = len(ctx.domains)
    own = tokens_by_domain(ctx.domain, ctx.mask[:, None], 1, domains)
    return route(ctx.records, ctx.mask, ctx.domain, domains, StepTokens(own=own, step=own))
