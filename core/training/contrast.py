"""Training on what should be said and what should not, kind by kind."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn
from transformers import Trainer, TrainingArguments

from ..config.contrast import contrast_options
from .job import StepJob, arguments
from .mixin import PhaseTrainerMixin
from .pairs import Pairs, RowCounts, count_rows, split_answers, token_log_probabilities
from .release import padding_token
from .rows import RowBlocks
from .trainers import one_device

COLUMNS = ("input_ids", "assistant_masks", "rejected_ids", "rejected_masks", "domain", "kind")


class _AnswerTrainer(Trainer):
    """Scores both answers of every row; the task loss is a mean over rows of the kinds in ``task``."""

    pairs: Pairs | None = None
    row_counts: RowCounts | None = None
    kinds: tuple[str, ...] = ()
    task: tuple[str, ...] = ()

    def compute_loss(
        self, model: nn.Module, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        kind, other = inputs.pop("kind"), inputs.pop("other")
        labels, places = inputs.pop("labels"), inputs.pop("places")
        counts = self.row_counts
        if not model.training or counts is None:
            rows, paired = count_rows({"kind": kind, "other": other}, len(self.kinds))
            counts = RowCounts(rows=rows, paired=paired)
        outputs = model(**inputs, use_cache=False)
        chosen, rejected = split_answers(token_log_probabilities(outputs["logits"], places, labels), other)
        pairs = Pairs(chosen=chosen, rejected=rejected, kind=kind, kinds=self.kinds, step=counts)
        self.pairs = pairs
        loss = pairs.mean_over(-chosen.mean(), self.task)
        if model.training:
            loss = loss * self.args.world_size  # data parallelism averages over processes
        return (loss, outputs) if return_outputs else loss


class ContrastPhaseTrainer(PhaseTrainerMixin, _AnswerTrainer):
    """Rows with what should be said, what should not (may be absent), and a kind.

    The task loss is the mean over the optimiser step's rows of the kinds in ``options.task`` (``general`` unless said
    otherwise) of -log p(y|x) / |y|, y being what should be said; it is 0 in a step without such rows. Rows of other
    kinds are learnt through loss terms over pairs (``harm-avoidance``, ``over-refusal``, ``domain-helpfulness``) alone.
    """


def build_contrast(job: StepJob) -> ContrastPhaseTrainer:
    """The trainer of a contrast job, whose data set names its kinds (``kind`` is a ``ClassLabel``).

    Raises ``ConfigError`` for a tokenizer without a padding token.
    """
    trainer = ContrastPhaseTrainer(
        job=job,
        model=job.model,
        args=one_device(TrainingArguments(**arguments(job))),
        train_dataset=RowBlocks(job.train, COLUMNS),
        eval_dataset=None if job.heldout is None else RowBlocks(job.heldout, COLUMNS),
        data_collator=PairCollator(padding_token(job.tokenizer)),
        callbacks=list(job.callbacks),
    )
    trainer.task = contrast_options(job.section.options, "the step").task
    trainer.kinds = tuple(job.train.features["kind"].names)
    trainer.loss_is_scaled_for_ga = True  # normalised by the rows of the whole optimiser step
    return trainer


class PairCollator:
    """Pads both answers of B rows to the right as one batch of R sequences: first what should be said, row by row, then
    what should not, for the rows that have it.

    ``input_ids``, ``attention_mask``, shape (R, T); ``labels``, the tokens of each answer (-100 beyond its end), and
    ``places``, the positions of the tokens before them, shape (R, A); ``domain``, shape (R,); ``kind`` and ``other``,
    the place of a row's second sequence (-1 for none), shape (B,).
    """

    def __init__(self, pad: int) -> None:
        self.pad = pad

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, torch.Tensor]:
        paired = [number for number, row in enumerate(rows) if len(row["rejected_ids"])]
        said = [(row["input_ids"], row["assistant_masks"]) for row in rows]
        unsaid = [(rows[number]["rejected_ids"], rows[number]["rejected_masks"]) for number in paired]
        sequences = [(np.asarray(tokens), np.flatnonzero(spoken[1:])) for tokens, spoken in (*said, *unsaid)]
        count = len(sequences)
        length, longest = max(len(tokens) for tokens, _ in sequences), max(len(places) for _, places in sequences)
        ids = np.full((count, length), self.pad, dtype=np.int64)
        mask = np.zeros((count, length), dtype=np.int64)
        places = np.zeros((count, longest), dtype=np.int64)
        labels = np.full((count, longest), -100, dtype=np.int64)
        for number, (tokens, before) in enumerate(sequences):
            ids[number, : len(tokens)] = tokens
            mask[number, : len(tokens)] = 1
            places[number, : len(before)] = before
            labels[number, : len(before)] = tokens[before + 1]
        other = np.full(len(rows), -1, dtype=np.int64)
        other[paired] = np.arange(len(rows), count)
        domain = [int(row.get("domain", -1)) for row in rows]
        return {
            "input_ids": torch.from_numpy(ids),
            "attention_mask": torch.from_numpy(mask),
            "labels": torch.from_numpy(labels),
            "places": torch.from_numpy(places),
            "domain": torch.tensor([*domain, *(domain[number] for number in paired)], dtype=torch.int64),
            "kind": torch.tensor([int(row["kind"]) for row in rows], dtype=torch.int64),
            "other": torch.from_numpy(other),
        }
