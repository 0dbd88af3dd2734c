"""Knowledge distillation: a student learns a frozen teacher's token distributions.

The student of a ``draft`` step is a draft model, that of a ``distill`` step the model itself; nothing here knows that.
Any causal language model can learn from any other that speaks the same vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import nn
from transformers import Trainer, TrainingArguments

from ...registry.errors import ConfigError
from ...registry.options import parse
from ..config.conversions import DistillOptions
from ..config.objectives import DraftOptions
from .collating import causal_batch
from .job import StepJob, arguments
from .mixin import PhaseTrainerMixin
from .rows import RowBlocks
from .trainers import COLUMNS, one_device

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def forward_kl(student: torch.Tensor, teacher: torch.Tensor, temperature: float = 1.0) -> torch.Tensor:
    """Sum over positions of KL(teacher || student) in nats, from logits of shape (N, V), in fp32.

    Both are softened by ``temperature`` and the sum is multiplied by its square, so that gradients keep their size
    (Hinton 2015, 1503.02531).
    """
    own = F.log_softmax(student.float() / temperature, dim=-1)
    wanted = F.log_softmax(teacher.float() / temperature, dim=-1)
    return F.kl_div(own, wanted, reduction="sum", log_target=True) * temperature**2


def reverse_kl(student: torch.Tensor, teacher: torch.Tensor, temperature: float = 1.0) -> torch.Tensor:
    """Sum over positions of KL(student || teacher) in nats, otherwise as ``forward_kl``: the student keeps to what the
    teacher finds likely and leaves some of it out (MiniLLM, Gu 2023, 2306.08543)."""
    own = F.log_softmax(student.float() / temperature, dim=-1)
    wanted = F.log_softmax(teacher.float() / temperature, dim=-1)
    return F.kl_div(wanted, own, reduction="sum", log_target=True) * temperature**2


@contextmanager
def logits_where(model: nn.Module, mask: torch.Tensor) -> Iterator[None]:
    """Within the block, ``model`` gives logits of shape (N, V) for the N positions that ``mask``, shape (B, T), marks.

    Only these go through the head, which at a small width is most of a forward. A hook on the head, so that whatever a
    family does to its logits afterwards still happens.
    """
    head: Any = model.get_output_embeddings()  # type: ignore[operator]

    def select(_module: nn.Module, args: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        return (args[0][mask], *args[1:])

    handle = head.register_forward_pre_hook(select)
    try:
        yield
    finally:
        handle.remove()


class _DistillationTrainer(Trainer):
    """Minimises ``share`` of the KL divergence from ``teacher`` and 1 - ``share`` of the cross-entropy at the
    supervised positions."""

    teacher: PreTrainedModel
    temperature: float = 1.0
    share: float = 1.0
    divergence: Callable[..., torch.Tensor] = staticmethod(forward_kl)

    def compute_loss(
        self, model: nn.Module, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        labels = inputs.pop("labels")
        learnt = F.pad(labels[:, 1:] != -100, (0, 1))  # shape: (B, T); what predicts a supervised token
        with torch.no_grad(), logits_where(self.teacher, learnt):
            wanted = self.teacher(**inputs, use_cache=False)["logits"]  # shape: (N, V)
        with logits_where(self.accelerator.unwrap_model(model), learnt):
            outputs = model(**inputs, use_cache=False)
        loss = self.divergence(outputs["logits"], wanted, self.temperature)
        if self.share < 1.0:
            told = labels[:, 1:][learnt[:, :-1]]  # shape: (N,)
            cross_entropy = F.cross_entropy(outputs["logits"].float(), told, reduction="sum")
            loss = self.share * loss + (1.0 - self.share) * cross_entropy
        loss = loss / (learnt.sum().clamp(min=1) if num_items_in_batch is None else num_items_in_batch)
        if model.training:
            loss = loss * self.args.world_size  # data parallelism averages over processes
        return (loss, outputs) if return_outputs else loss


class DistillationPhaseTrainer(PhaseTrainerMixin, _DistillationTrainer):
    """Packed rows as a causal trainer reads them: input_ids, position_ids, labels, domain.

    The task loss is a mean over the supervised tokens of the optimiser step: of KL(teacher || student) for a draft
    (DistillSpec, Zhou 2023, 2310.08461: forward KL on the teacher's own samples), and as ``DistillOptions`` says for a
    model that also learns from text. The teacher is neither trained nor put into another mode: give it in eval mode.
    """


def build_distillation(job: StepJob) -> DistillationPhaseTrainer:
    """The trainer of a draft or distill job, whose ``reference`` is the teacher.

    Raises ``ConfigError`` without a teacher, or for one that speaks another vocabulary.
    """
    teacher = job.reference
    if teacher is None:
        raise ConfigError(f"a {job.objective} step needs a teacher to learn from; give the job a reference model")
    sizes = [model.config.get_text_config(decoder=True).vocab_size for model in (teacher, job.model)]
    if sizes[0] != sizes[1]:
        raise ConfigError(
            f"the teacher speaks {sizes[0]} tokens and the student {sizes[1]}, so their distributions cannot be "
            "compared; give both the same vocabulary"
        )
    trainer = DistillationPhaseTrainer(
        job=job,
        model=job.model,
        args=one_device(TrainingArguments(**arguments(job))),
        train_dataset=RowBlocks(job.train, COLUMNS),
        eval_dataset=None if job.heldout is None else RowBlocks(job.heldout, COLUMNS),
        data_collator=causal_batch,
        callbacks=list(job.callbacks),
    )
    teacher.to(trainer.args.device)
    trainer.teacher = teacher
    _configure(trainer, job)
    trainer.loss_is_scaled_for_ga = True  # normalised by the tokens of the whole optimiser step
    return trainer


def _configure(trainer: DistillationPhaseTrainer, job: StepJob) -> None:
    label = f"the {job.objective} step"
    if job.objective == "draft":
        draft: DraftOptions = parse(DraftOptions, job.section.options, label)
        trainer.temperature = draft.softening
        return
    options: DistillOptions = parse(DistillOptions, job.section.options, label)
    trainer.temperature, trainer.share = options.temperature, options.share
    trainer.divergence = forward_kl if options.direction == "forward" else reverse_kl
