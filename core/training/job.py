"""One step of a phase as a job: everything a trainer needs, and the trainer built from it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ...registry.errors import ConfigError, DataError
from ..config.conversions import CAUSAL
from ..config.schema import Objective, StepSection
from .accounting import Replay
from .memory import keep_freed_memory
from .terms import WeightedLoss

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedModel, PreTrainedTokenizerBase, Trainer, TrainerCallback


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class StepJob:
    """One optimisation: ``train`` holds exactly ``section.steps * section.rows`` rows in their final order.

    ``objective`` is one that has a trainer: causal, sft, dpo, contrast, draft or distill. ``section.rows`` is the
    number of rows per optimiser step over all processes and micro-batches. ``replay`` goes beside all but causal steps;
    ``reference`` is for dpo (None: a frozen copy of ``model`` as it is) and, as the teacher, for draft and distill.
    ``folder`` takes the trainer's checkpoints, one every ``save_steps``. ``length`` bounds tokenised dpo rows. A causal
    step needs no ``tokenizer``.
    """

    objective: Objective
    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase | None
    train: Dataset
    heldout: Dataset | None
    replay: Replay | None
    section: StepSection
    losses: tuple[WeightedLoss, ...]
    domains: tuple[str, ...]
    seed: int
    folder: Path
    reference: PreTrainedModel | None = None
    logging_steps: int = 20
    save_steps: int = 100
    callbacks: Sequence[TrainerCallback] = ()
    precision: Literal["fp32", "bf16"] = "fp32"
    length: int | None = None


def world_size() -> int:
    """How many processes train together, as the launcher (torchrun) says."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def build_trainer(job: StepJob) -> Trainer:
    """The trainer of a job, ready for ``train()``; call ``release(trainer)`` when done with it.

    Raises ``ConfigError`` for rows that do not divide, unknown freeze patterns or options, and ``DataError`` for a
    data set of the wrong length.
    """
    section, parts = job.section, job.section.accumulate * world_size()
    if section.rows % parts:
        raise ConfigError(
            f"rows {section.rows} cannot be split over {world_size()} process(es) and accumulate "
            f"{section.accumulate}; make rows a multiple of {parts}"
        )
    if len(job.train) != section.steps * section.rows:
        raise DataError(
            f"the {job.objective} step needs steps x rows = {section.steps} x {section.rows} = "
            f"{section.steps * section.rows} training rows in order, but got {len(job.train)}"
        )
    replay = section.replay
    if job.replay is not None and replay.routing == "replayed" and world_size() > 1 and replay.rows < parts:
        # A process without a replayed row would not take part in summing the load, and all others would wait for it.
        raise ConfigError(
            f"replay.routing 'replayed' needs replayed rows in every process, but {replay.rows} rows are dealt to "
            f"{world_size()} processes x accumulate {section.accumulate}; raise replay.rows to {parts} or more"
        )
    term = next((term for term in job.losses if term.over_pairs), None)
    if term is not None and job.objective != "contrast":
        raise ConfigError(
            f"the loss '{term.name}' compares what should be said with what should not, which a {job.objective} step "
            "does not know; use it in a contrast step"
        )
    if job.replay is not None and job.objective in CAUSAL:
        raise ConfigError(
            f"a {job.objective} step replays through its own rows (replay.share), not through replay.rows"
        )
    import torch
    from transformers.utils import logging

    logging.disable_progress_bar()  # saving a checkpoint draws one
    if not torch.cuda.is_available():
        keep_freed_memory()
    if job.objective == "causal":
        from .trainers import build_causal

        return build_causal(job)
    if job.objective == "sft":
        from .sft import build_sft

        return build_sft(job)
    if job.objective == "contrast":
        from .contrast import build_contrast

        return build_contrast(job)
    if job.objective in {"distill", "draft"}:
        from .distillation import build_distillation

        return build_distillation(job)
    from .dpo import build_dpo

    return build_dpo(job)


def arguments(job: StepJob) -> dict[str, Any]:
    """The training arguments that all trainers share: order kept, nothing reported, nothing synchronised needlessly."""
    import torch

    section = job.section
    rows = section.rows // (section.accumulate * world_size())
    return {
        "output_dir": str(job.folder),
        "per_device_train_batch_size": rows,
        "per_device_eval_batch_size": max(rows, 16),
        "gradient_accumulation_steps": section.accumulate,
        "max_steps": section.steps,
        "learning_rate": section.learning_rate,
        "weight_decay": section.weight_decay,
        "adam_beta1": section.betas[0],
        "adam_beta2": section.betas[1],
        "max_grad_norm": section.clip,
        "bf16": job.precision == "bf16",
        "use_cpu": not torch.cuda.is_available(),
        "activation_checkpointing": section.activation_checkpointing,
        "activation_checkpointing_kwargs": {"use_reentrant": False} if section.activation_checkpointing else None,
        "seed": job.seed,
        "train_sampling_strategy": "sequential",
        "remove_unused_columns": False,
        "dataloader_pin_memory": torch.cuda.is_available(),
        "logging_steps": job.logging_steps,
        "save_strategy": "steps",
        "save_steps": max(1, job.save_steps),
        "save_total_limit": 2,
        "eval_strategy": "no",
        "prediction_loss_only": True,
        "report_to": "none",
        "disable_tqdm": True,
        # It would read the loss back after every micro-batch.
        "logging_nan_inf_filter": False,
        # A parameter used in a loss term only would be marked ready twice; buffers are equal on all processes.
        "ddp_find_unused_parameters": False,
        "ddp_broadcast_buffers": False,
    }
