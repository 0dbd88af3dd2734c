"""Supervised fine-tuning with trl."""

from __future__ import annotations

from trl import SFTConfig, SFTTrainer

from .collating import ChatCollator
from .job import StepJob, arguments
from .mixin import PhaseTrainerMixin
from .quiet import no_progress_bars, no_telemetry
from .release import padding_token
from .trainers import one_device, refuse_options


class SFTPhaseTrainer(PhaseTrainerMixin, SFTTrainer):
    """Loss on the assistant's tokens of tokenised rows: input_ids, assistant_masks, domain.

    trl patches ``model.forward`` with a head that does not build the logits; there is no public switch, and routers
    are recorded all the same. ``release`` takes the patch off.
    """


def build_sft(job: StepJob) -> SFTPhaseTrainer:
    """The trainer of an sft job. Raises ``ConfigError`` for a tokenizer without a padding token."""
    refuse_options(job)
    no_telemetry()
    args = SFTConfig(
        **arguments(job),
        dataset_kwargs={"skip_prepare_dataset": True},
        max_length=None,
        router_aux_loss_coef=0.0,
    )
    with no_progress_bars():
        return SFTPhaseTrainer(
            job=job,
            model=job.model,
            args=one_device(args),
            train_dataset=job.train.with_format("numpy"),
            eval_dataset=None if job.heldout is None else job.heldout.with_format("numpy"),
            data_collator=ChatCollator(padding_token(job.tokenizer)),
            processing_class=job.tokenizer,
            callbacks=list(job.callbacks),
        )
