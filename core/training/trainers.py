"""The trainers: the mixin over transformers' Trainer here, over trl's in ``sft`` and ``dpo`` (imported when used)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from transformers import Trainer, TrainingArguments

from ...registry.errors import ConfigError
from .collating import causal_batch
from .job import StepJob, arguments
from .mixin import PhaseTrainerMixin
from .rows import RowBlocks

if TYPE_CHECKING:
    from .dpo import DPOPhaseTrainer
    from .sft import SFTPhaseTrainer

COLUMNS = ("input_ids", "position_ids", "labels", "domain")

__all__ = ["CausalPhaseTrainer", "DPOPhaseTrainer", "SFTPhaseTrainer"]


class CausalPhaseTrainer(PhaseTrainerMixin, Trainer):
    """Next-token prediction on packed rows: input_ids, position_ids, labels, domain."""


def build_causal(job: StepJob) -> CausalPhaseTrainer:
    """The trainer of a causal job."""
    refuse_options(job)
    return CausalPhaseTrainer(
        job=job,
        model=job.model,
        args=one_device(TrainingArguments(**arguments(job))),
        train_dataset=RowBlocks(job.train, COLUMNS),
        eval_dataset=None if job.heldout is None else RowBlocks(job.heldout, COLUMNS),
        data_collator=causal_batch,
        callbacks=list(job.callbacks),
    )


def one_device(args: Any) -> Any:
    """Refuse several GPUs in one process, which Trainer would serve with DataParallel: hooks would miss replicas."""
    if args.n_gpu > 1:
        raise ConfigError(
            f"this process sees {args.n_gpu} GPUs; start one process per GPU "
            f"(torchrun --standalone --nproc_per_node {args.n_gpu}) or set CUDA_VISIBLE_DEVICES to one"
        )
    return args


def refuse_options(job: StepJob) -> None:
    """Refuse options that an objective does not read."""
    if job.section.options:
        raise ConfigError(
            f"a {job.objective} step has no option '{next(iter(job.section.options))}'; remove it (beta and nll belong "
            "to dpo)"
        )


def __getattr__(name: str) -> Any:
    if name == "SFTPhaseTrainer":
        from .sft import SFTPhaseTrainer

        return SFTPhaseTrainer
    if name == "DPOPhaseTrainer":
        from .dpo import DPOPhaseTrainer

        return DPOPhaseTrainer
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
