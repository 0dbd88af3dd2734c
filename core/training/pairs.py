"""Both answers of a batch of rows, as terms over what should and what should not be said see them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

_LEAST = 1e-5  # the smallest 1 - p: its logarithm and its gradient stay finite (Welleck 2019)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Answers:
    """Log-probabilities of one answer per row, in nats, fp32, with gradient; a row without an answer has no token."""

    tokens: torch.Tensor  # shape: (B, A), 0 beyond the answer's end
    labels: torch.Tensor  # shape: (B, A), int64, -100 beyond the answer's end
    mask: torch.Tensor  # shape: (B, A), fp32, 1 in the answer

    def mean(self) -> torch.Tensor:
        """log p(y|x) / |y|, shape (B,); 0 for a row without an answer."""
        return self.tokens.sum(1) / self._lengths()

    def unlikelihood(self, beside: Answers) -> torch.Tensor:
        """-sum_t log(1 - p(y_t | x, y_<t)) / |y|, shape (B,), over the tokens from the first on in which the answer
        differs from that of ``beside``; 0 for a row without an answer (Welleck 2019, 1908.04319).

        What both begin with is left out: making it unlikely would make the other answer unlikely, too.
        """
        width = min(self.labels.shape[1], beside.labels.shape[1])
        same = (self.labels[:, :width] == beside.labels[:, :width]).float().cumprod(1)
        own = self.mask.clone()
        own[:, :width] *= 1 - same
        # Where nothing counts, p is taken as 0, whose term is 0.
        log_probability = torch.where(own > 0, self.tokens, -torch.inf)
        terms = (-torch.expm1(log_probability)).clamp(min=_LEAST).log()
        return -terms.sum(1) / own.sum(1).clamp(min=1)

    def _lengths(self) -> torch.Tensor:
        return self.mask.sum(1).clamp(min=1)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RowCounts:
    """Rows of each kind in one optimiser step, over all micro-batches and processes."""

    rows: torch.Tensor  # shape: (K,), fp32
    paired: torch.Tensor  # shape: (K,), fp32; those of which it is known what should not be said


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Pairs:
    """The rows of one micro-batch of a contrast step: what should be said, what should not, and the rows' kinds."""

    chosen: Answers
    rejected: Answers
    kind: torch.Tensor  # shape: (B,), int64; index into kinds
    kinds: tuple[str, ...]
    step: RowCounts

    def mean_over(self, values: torch.Tensor, kinds: Sequence[str], *, paired: bool = False) -> torch.Tensor:
        """This micro-batch's part of the mean of ``values``, shape (B,), over the optimiser step's rows of ``kinds``;
        with ``paired`` over those that have a rejected answer. The parts of a step add up to the mean, however it is
        split; without such a row it is 0."""
        named = torch.tensor([name in kinds for name in self.kinds], device=values.device)
        where = named[self.kind]
        if paired:
            where = where & (self.rejected.mask.sum(1) > 0)
        counts = self.step.paired if paired else self.step.rows
        return torch.where(where, values, 0.0).sum() / (counts * named).sum().clamp(min=1)


def token_log_probabilities(logits: torch.Tensor, places: torch.Tensor, labels: torch.Tensor) -> Answers:
    """Answers under next-token ``logits`` (R, T, V): ``labels`` (R, A) are an answer's tokens (-100 beyond its end) and
    ``places`` (R, A) the positions of the tokens before them."""
    vocabulary = logits.shape[-1]
    # Softmax where something is said only: over the prompts it would cost several times as much.
    spoken = logits.gather(1, places[..., None].expand(-1, -1, vocabulary))  # shape: (R, A, V)
    losses = torch.nn.functional.cross_entropy(
        spoken.float().view(-1, vocabulary), labels.flatten(), ignore_index=-100, reduction="none"
    )
    return Answers(tokens=-losses.view(labels.shape), labels=labels, mask=(labels != -100).float())


def split_answers(answers: Answers, other: torch.Tensor) -> tuple[Answers, Answers]:
    """What should be said (the first B sequences) and what should not: ``other`` (B,) is the place of a row's second
    sequence, or -1 where it has none."""
    rows, known, places = other.shape[0], (other >= 0)[:, None], other.clamp(min=0)
    return (
        Answers(tokens=answers.tokens[:rows], labels=answers.labels[:rows], mask=answers.mask[:rows]),
        Answers(
            tokens=answers.tokens[places] * known,
            labels=torch.where(known, answers.labels[places], -100),
            mask=answers.mask[places] * known,
        ),
    )


def count_rows(batch: Mapping[str, Any], kinds: int) -> torch.Tensor:
    """Rows and paired rows of each kind in one micro-batch, shape (2, K), fp32."""
    kind: torch.Tensor = batch["kind"]
    paired = (batch["other"] >= 0).float()
    counts = torch.zeros(2, kinds, dtype=torch.float32, device=kind.device)
    return counts.scatter_add_(1, kind.expand(2, -1), torch.stack([torch.ones_like(paired), paired]))
