"""What loss terms see: contexts of the tiny model on a batch with padding, and the real trainer around a term."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from datasets import ClassLabel, Dataset, Features, List, Value
from transformers import TrainerCallback

from ..core.config.schema import StepSection
from ..core.model.parameters import routers_of
from ..core.training.accounting import following
from ..core.training.capture import RouterCapture
from ..core.training.contrast import PairCollator
from ..core.training.job import StepJob, build_trainer
from ..core.training.pairs import Pairs, RowCounts, count_rows, split_answers, token_log_probabilities
from ..core.training.release import release
from ..core.training.terms import LossContext, LossSetup, WeightedLoss
from .collecting import quick_collections
from .tiny import DOMAINS, VOCABULARY, prepared, tiny_model, tiny_tokenizer, tokens

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from .check import Subject

KINDS = ("benign", "general", "harmful", "legal", "medical", "security")
_FEATURES = Features(
    {
        **dict.fromkeys(("input_ids", "assistant_masks", "rejected_ids", "rejected_masks"), List(Value("int32"))),
        "domain": Value("int64"),
        "kind": ClassLabel(names=list(KINDS)),
    }
)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Trial:
    """A loss term with the model that it was built for."""

    model: PreTrainedModel
    loss: Any

    @property
    def over_pairs(self) -> bool:
        """Whether the term reads rows with two answers."""
        return bool(getattr(self.loss, "over_pairs", False))


def try_out(subject: Subject, *, seed: int = 0) -> Trial:
    """The term, built for the example's model and a frozen parent of other weights."""
    model = prepared(tiny_model(subject, seed=seed), subject.example)
    routers: list[Any] = [module for _, _, module in routers_of(model)]

    def parent() -> PreTrainedModel:
        return tiny_model(subject, seed=seed + 100).eval().requires_grad_(False)

    setup = LossSetup(
        model=model,
        domains=DOMAINS,
        experts=int(routers[0].num_experts),
        top_k=int(routers[0].top_k),
        layers=len(routers),
        world_size=1,
        accumulate=1,
        parent=parent,
    )
    return Trial(model=model, loss=subject.build(setup=setup))


def context_of(trial: Trial, *, seed: int = 0, filling: int = 0, step: int = 0) -> LossContext:
    """One micro-batch that is a whole optimiser step, with gradient; ``filling`` is the token that padding holds."""
    if trial.over_pairs:
        return _context_of_pairs(trial, seed, filling, step)
    ids = tokens(6, 12, seed=seed)
    mask = torch.arange(12) < torch.tensor([[12], [9], [12], [7], [12], [10]])
    batch = {
        "input_ids": torch.where(mask, ids, filling),
        "attention_mask": mask.long(),
        "position_ids": torch.arange(12).expand(6, 12),
    }
    domain = torch.tensor([0, 1, 2, 0, -1, 1])
    with (capture := RouterCapture(trial.model)).recording() as recording:
        trial.model.train()(**batch, use_cache=False)
    capture.remove()
    return LossContext(
        model=trial.model,
        records=capture.records(recording),
        mask=mask.flatten(),
        domain=domain.repeat_interleave(12),
        domains=DOMAINS,
        step=step,
        progress=0.5,
        follows=following(batch),
    )


def _context_of_pairs(trial: Trial, seed: int, filling: int, step: int) -> LossContext:
    rows = pair_rows(12, seed=seed)
    batch = PairCollator(filling)([rows[number] for number in range(len(rows))])
    with (capture := RouterCapture(trial.model)).recording() as recording:
        outputs = trial.model.train()(
            input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], use_cache=False
        )
    capture.remove()
    chosen, rejected = split_answers(
        token_log_probabilities(outputs.logits, batch["places"], batch["labels"]), batch["other"]
    )
    rows_of_kind, paired = count_rows(batch, len(KINDS))
    counts = RowCounts(rows=rows_of_kind, paired=paired)
    return LossContext(
        model=trial.model,
        records=capture.records(recording),
        mask=batch["attention_mask"].flatten().bool(),
        domain=batch["domain"].repeat_interleave(batch["input_ids"].shape[1]),
        domains=DOMAINS,
        step=step,
        progress=0.5,
        pairs=Pairs(chosen=chosen, rejected=rejected, kind=batch["kind"], kinds=KINDS, step=counts),
    )


def text_rows(count: int, *, seed: int = 0) -> Dataset:
    """Packed rows of 12 tokens, two documents each, some of unknown domain."""
    random = np.random.default_rng(seed)
    ids = random.integers(6, VOCABULARY, (count, 12))
    return Dataset.from_dict(
        {
            "input_ids": ids,
            "position_ids": np.tile(np.arange(6), (count, 2)),
            "labels": ids,
            "domain": random.integers(-1, len(DOMAINS), count),
        }
    )


def pair_rows(count: int, *, seed: int = 0) -> Dataset:
    """Rows of every kind in turn, with answers of one to five tokens; every fifth has no rejected one."""
    random = np.random.default_rng(seed)
    columns: dict[str, list[Any]] = {name: [] for name in _FEATURES}
    for number in range(count):
        prompt = random.integers(6, VOCABULARY, int(random.integers(3, 8))).tolist()
        said, unsaid = (random.integers(6, VOCABULARY, int(random.integers(1, 6))).tolist() for _ in range(2))
        paired = number % 5 != 4
        row = {
            "input_ids": [*prompt, *said],
            "assistant_masks": [*[0] * len(prompt), *[1] * len(said)],
            "rejected_ids": [*prompt, *unsaid] if paired else [],
            "rejected_masks": [*[0] * len(prompt), *[1] * len(unsaid)] if paired else [],
            "domain": int(random.integers(0, len(DOMAINS))),
            "kind": number % len(KINDS),
        }
        for name, value in row.items():
            columns[name].append(value)
    return Dataset.from_dict(columns, features=_FEATURES)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Trained:
    """What training with a term left: the training log, and the gradients of the first optimiser step by parameter."""

    log: Sequence[Mapping[str, float]]
    gradients: Mapping[str, torch.Tensor]


class _FirstGradients(TrainerCallback):
    def __init__(self) -> None:
        self.found: dict[str, torch.Tensor] = {}

    def on_pre_optimizer_step(self, *_: Any, model: Any, **__: Any) -> None:
        if not self.found:
            named = model.named_parameters()
            self.found = {name: p.grad.clone() for name, p in named if p.grad is not None}


def train(trial: Trial, name: str, *, accumulate: int, steps: int = 1, rows: int = 4) -> Trained:
    """Train the trial's model on its term beside the task loss, by the platform's own trainer."""
    data = pair_rows(steps * rows) if trial.over_pairs else text_rows(steps * rows)
    first = _FirstGradients()
    with quick_collections(), TemporaryDirectory() as folder:
        job = StepJob(
            objective="contrast" if trial.over_pairs else "causal",
            model=trial.model,
            tokenizer=tiny_tokenizer(),
            train=data,
            heldout=None,
            replay=None,
            section=StepSection(
                steps=steps, rows=rows, accumulate=accumulate, learning_rate=1e-3, warmup=0.0, clip=0.0
            ),
            losses=(WeightedLoss(name=name, loss=trial.loss, weight=1.0, options={}),),
            domains=DOMAINS,
            seed=0,
            folder=Path(folder),
            logging_steps=1,
            save_steps=1000,
            callbacks=(first,),
        )
        trainer = build_trainer(job)
        trainer.train()
        log = list(trainer.state.log_history)
        release(trainer)
    return Trained(log=log, gradients=first.found)
