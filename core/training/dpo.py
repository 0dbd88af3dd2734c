"""Direct preference optimisation with trl."""

from __future__ import annotations

from trl import DPOConfig, DPOTrainer
from trl.trainer.dpo_trainer import DataCollatorForPreference

from ...registry.errors import DataError
from ...registry.options import parse
from ..config.objectives import DpoOptions
from .collating import WithDomain
from .job import StepJob, arguments
from .mixin import PhaseTrainerMixin
from .quiet import no_progress_bars, no_telemetry
from .release import frozen_copy, padding_token
from .trainers import one_device


class DPOPhaseTrainer(PhaseTrainerMixin, DPOTrainer):
    """Preference pairs: prompt, chosen, rejected (message lists), domain; the reference is a frozen model."""


def build_dpo(job: StepJob) -> DPOPhaseTrainer:
    """The trainer of a dpo job.

    Raises ``ConfigError`` for an unknown option and ``DataError`` for prompts that leave no room for an answer.
    """
    options = parse(DpoOptions, job.section.options, "a dpo step")
    no_telemetry()
    args = DPOConfig(
        **arguments(job),
        beta=options.beta,
        loss_type=["sigmoid", "sft"] if options.nll else ["sigmoid"],
        loss_weights=[1.0, options.nll] if options.nll else None,
        max_length=job.length,
        router_aux_loss_coef=0.0,
    )
    collate = DataCollatorForPreference(pad_token_id=padding_token(job.tokenizer), max_length=job.length)
    with no_progress_bars():
        trainer = DPOPhaseTrainer(
            job=job,
            model=job.model,
            ref_model=frozen_copy(job.model) if job.reference is None else job.reference,
            args=one_device(args),
            train_dataset=job.train,
            eval_dataset=job.heldout,
            data_collator=WithDomain(collate),
            processing_class=job.tokenizer,
            callbacks=list(job.callbacks),
        )
    missing = len(job.train) - len(trainer.train_dataset)
    if missing:
        raise DataError(
            f"{missing} of {len(job.train)} preference rows have prompts of {job.length} tokens or more, which leaves "
            "no room for an answer; raise sequence_length or drop them"
        )
    return trainer
