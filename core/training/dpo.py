"""Direct preference optimisation with trl."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from trl import DPOConfig, DPOTrainer
from trl.trainer.dpo_trainer import DataCollatorForPreference

from ...registry.errors import ConfigError, DataError
from .collating import WithDomain
from .job import StepJob, arguments
from .mixin import PhaseTrainerMixin
from .quiet import no_progress_bars, no_telemetry
from .release import frozen_copy, padding_token
from .trainers import one_device


@dataclass(frozen=True, slots=True, kw_only=True)
class DPOOptions:
    """``beta``: strength of the reference (Rafailov 2023, 2305.18290); ``nll``: weight of the chosen answer's
    cross-entropy (RPO, Pang 2024, 2404.19733)."""

    beta: float = 0.1
    nll: float = 0.0


class DPOPhaseTrainer(PhaseTrainerMixin, DPOTrainer):
    """Preference pairs: prompt, chosen, rejected (message lists), domain; the reference is a frozen model."""


def build_dpo(job: StepJob) -> DPOPhaseTrainer:
    """The trainer of a dpo job.

    Raises ``ConfigError`` for an unknown option and ``DataError`` for prompts that leave no room for an answer.
    """
    options = _options(job.section.options)
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


def _options(given: Mapping[str, Any]) -> DPOOptions:
    known = [field.name for field in fields(DPOOptions)]
    for name, value in given.items():
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1, cutoff=0.0)
            raise ConfigError(f"a dpo step has no option '{name}'; did you mean '{near[0]}'?")
        if not isinstance(value, int | float) or isinstance(value, bool) or value < 0:
            raise ConfigError(f"the dpo option '{name}' is a number of at least 0, not {value!r}")
    return DPOOptions(**{name: float(value) for name, value in given.items()})
