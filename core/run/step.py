"""One step of a phase: its data, its trainer, training from wherever it was interrupted, and what it did."""

from __future__ import annotations

import signal
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...registry.errors import ConfigError
from ...registry.options import parse
from ..config.conversions import CAUSAL, DistillOptions
from ..config.schema import BumpSection, Experiment, StepSection
from .interrupt import Interrupted, Interruption
from .processes import is_main, stop_together, wait_for_all, world_size
from .seeds import derive, seed_everything

if TYPE_CHECKING:
    from collections.abc import Callable

    from transformers import PreTrainedModel, PreTrainedTokenizerFast

    from ...registry.plugins import Plugins
    from ...registry.registry import Registry
    from ..data.corpus import Corpus
    from ..data.step_data import StepData
    from ..training.checkpoint import StopCallback
    from ..training.terms import WeightedLoss


@dataclass(frozen=True, slots=True, kw_only=True)
class Workshop:
    """What all steps of a phase share."""

    experiment: Experiment
    registry: Registry
    plugins: Plugins
    corpus: Corpus
    tokenizer: PreTrainedTokenizerFast
    length: int
    interruption: Interruption
    callbacks: Callable[[str, float], tuple[Any, ...]]


@dataclass(frozen=True, slots=True, kw_only=True)
class StepOrder:
    """What one step is to do: ``earlier`` are the steps whose data may be replayed and whose validation loss is
    watched; ``identity`` is what its random streams derive from; ``folder`` holds the trainer's checkpoints.
    ``teacher`` gives an earlier stage by name, frozen, ``parent`` for what the phase started from."""

    phase: str
    name: str
    section: StepSection
    earlier: tuple[StepSection, ...]
    identity: str
    folder: Path
    bump: BumpSection
    teacher: Callable[[str], PreTrainedModel] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class StepResult:
    """What a step did: its log rows, tokens, seconds, what its data left out, the transition bump where an earlier
    phase was watched, and what it read of the corpus."""

    history: Sequence[Mapping[str, float]]
    tokens: int
    seconds: float
    bump: Mapping[str, Any] | None
    notes: Sequence[str] = ()
    read: Sequence[str] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenStep:
    """A step that is ready to train: its trainer, its data, and the callbacks that tell of it afterwards."""

    trainer: Any
    data: StepData
    stop: StopCallback
    watch: Sequence[Any]
    quantizing: Sequence[Any]


def open_step(shop: Workshop, order: StepOrder, model: PreTrainedModel) -> OpenStep:
    """Build the data, the loss terms and the trainer of a step around ``model``; ``release`` takes them off again."""
    from ..data.step_data import StepDataRequest, build_step_data
    from ..training.checkpoint import StopCallback
    from ..training.hooks import attach_all
    from ..training.job import StepJob, build_trainer
    from ..training.release import frozen_copy

    section = order.section
    seed = derive(order.identity, order.name, "train")
    # New models of one phase are there to be compared: they read the same rows in the same order.
    rows = order.name if section.fresh is None else "fresh"
    length = section.sequence_length or shop.length
    data = build_step_data(
        StepDataRequest(
            corpus=shop.corpus,
            tokenizer=shop.tokenizer,
            step=section,
            length=length,
            previous=order.earlier,
            seed=derive(order.identity, rows, "data"),
        )
    )
    reference = frozen_copy(model) if section.objective == "dpo" else teacher_of(order)
    seed_everything(seed)
    watch, quantizing = bump_callback(shop, order, length), quantizer_callback(shop, order, model, length)
    stop = StopCallback(shop.interruption.event)
    callbacks = [
        *shop.callbacks(order.name, data.tokens / section.steps),
        stop,
        *watch,
        *quantizing,
        *step_hook(shop, order),
    ]
    job = StepJob(
        objective=section.objective,
        model=model,
        tokenizer=shop.tokenizer,
        train=data.train,
        heldout=data.heldout,
        replay=data.replay,
        section=section,
        losses=build_losses(shop, order, model),
        domains=shop.corpus.domains,
        seed=seed,
        folder=order.folder,
        reference=reference,
        logging_steps=shop.experiment.run.logging_steps,
        save_steps=max(1, round(section.steps * shop.experiment.run.save_every)),
        callbacks=tuple(callbacks),
        precision=shop.experiment.precision,
        length=length,
    )
    trainer = build_trainer(job)
    attach_all(callbacks, trainer)
    return OpenStep(trainer=trainer, data=data, stop=stop, watch=watch, quantizing=quantizing)


def train_step(shop: Workshop, order: StepOrder, model: PreTrainedModel) -> StepResult:
    """Train ``model`` in place, from the last complete checkpoint in ``order.folder`` if there is one.

    Raises ``Interrupted`` after a signal, with a complete checkpoint on disk.
    """
    opened = open_step(shop, order, model)
    started = time.perf_counter()
    history = run_trainer(shop, order, opened.trainer, opened.stop)
    seconds = time.perf_counter() - started
    bump = opened.watch[0].result() if opened.watch else None
    reports = [row for callback in opened.quantizing for row in callback.reports]
    return StepResult(
        history=tuple(sorted([*reports, *history], key=lambda row: row["step"])),
        tokens=opened.data.tokens,
        seconds=seconds,
        bump=bump.as_dict() if bump is not None else None,
        notes=(*opened.data.notes, *(event_note(row) for row in reports)),
    )


def run_trainer(shop: Workshop, order: StepOrder, trainer: Any, stop: StopCallback) -> tuple[Any, ...]:
    """Train from the last complete checkpoint in ``order.folder``, if there is one, and return the log; the trainer is
    released.

    Raises ``Interrupted`` after a signal to this process or another, with a complete checkpoint on disk once training
    began.
    """
    from ..training.checkpoint import latest_complete, remove_incomplete
    from ..training.release import release

    try:
        stop_together(shop.interruption)
        if is_main():
            remove_incomplete(order.folder)
        wait_for_all()
        resume = latest_complete(order.folder)
        trainer.train(resume_from_checkpoint=str(resume) if resume is not None else None)
        history = tuple(trainer.state.log_history)
    finally:
        release(trainer)
    if stop.stopped and not shop.interruption.requested:
        raise Interrupted(128 + signal.SIGTERM)  # another process was asked, and all have stopped
    shop.interruption.check()
    return history


def bump_callback(shop: Workshop, order: StepOrder, length: int) -> list[Any]:
    """Return the callback that watches the validation loss of the earlier phases' text; none in a first phase."""
    if not any(step.objective in CAUSAL for step in order.earlier):
        return []
    from ..data.heldout import heldout_rows
    from ..training.bump import BumpCallback

    rows = heldout_rows(shop.corpus, shop.tokenizer, length, order.bump.rows)
    return [BumpCallback(rows, steps=order.section.steps, every=order.bump.every, tolerance=order.bump.tolerance)]


def step_hook(shop: Workshop, order: StepOrder) -> list[Any]:
    """Return the callback that calls ``phasegate_on_step``; none when no plugin implements it."""
    if not shop.plugins.implements("phasegate_on_step"):
        return []
    from ..training.hooks import StepHook

    return [StepHook(shop.plugins.hook, order.phase, order.name)]


def teacher_of(order: StepOrder) -> PreTrainedModel | None:
    """Return the frozen model that a distill step learns from; None in other steps."""
    if order.section.objective != "distill":
        return None
    options: DistillOptions = parse(DistillOptions, order.section.options, f"phases.{order.phase}.steps.{order.name}")
    assert order.teacher is not None
    return order.teacher(options.teacher)


def quantizer_callback(shop: Workshop, order: StepOrder, model: PreTrainedModel, length: int) -> list[Any]:
    """Put the step's quantizer on the model and return what brings it on by and by; nothing for a step without one, and
    for a model that it is on already, as in the extension of a phase. ``ConfigError`` for one with another
    quantizer."""
    section = order.section.quantizer
    if section is None:
        return []
    from ..model.quantization import FIELD, quantization_of, quantize_experts

    use = shop.registry.get("quantizer", section.use).ref
    if quantization_of(model) is not None:
        if getattr(model.config, FIELD) != {"use": use, "options": dict(section.options)}:
            raise ConfigError(
                f"phases.{order.phase}.steps.{order.name}.quantizer: the experts are quantized by then, and otherwise; "
                "remove it, or the quantizer before it."
            )
        return []
    from ..data.heldout import heldout_rows
    from ..training.bump import batches_of
    from ..training.quantizing import QuantizerCallback, QuantizerSchedule

    quantizer = shop.registry.build("quantizer", section.use, section.options)
    quantization = quantize_experts(model, use, section.options, quantizer)
    schedule = QuantizerSchedule(
        events=section.events, shares=section.shares, order=section.order, freeze=section.freeze
    )
    rows = heldout_rows(shop.corpus, shop.tokenizer, length, order.bump.rows)
    return [QuantizerCallback(quantization, schedule, batches_of(rows))]


def event_note(row: Mapping[str, Any]) -> str:
    """Return what an event of the quantizer did, in one line."""
    told = (
        f"step {row['step']}: {row['share']:.0%} of the expert weights quantized, {row['zeros']:.1%} of them zero, "
        f"relative squared error {row['error']:.3g}"
    )
    before, after = row["perplexity_before"], row["perplexity_after"]
    return told if before is None else f"{told}, perplexity {before:.3f} -> {after:.3f}"


def build_losses(shop: Workshop, order: StepOrder, model: PreTrainedModel) -> tuple[WeightedLoss, ...]:
    """Return the loss components of a step, built for this model; ``ConfigError`` for a model without routers."""
    section = order.section
    if not section.losses:
        return ()
    from ..model.parameters import routers_of
    from ..training.terms import LossSetup, WeightedLoss

    routers = routers_of(model)
    if not routers:
        raise ConfigError(
            f"phases.{order.phase}.steps.{order.name}.losses ({', '.join(section.losses)}) look at experts, which the "
            "model does not have by then; remove them, or put an upcycle step before it."
        )
    teacher = order.teacher
    first: Any = routers[0][2]
    setup = LossSetup(
        model=model,
        domains=shop.corpus.domains,
        experts=first.num_experts,
        top_k=first.top_k,
        layers=len(routers),
        world_size=world_size(),
        accumulate=section.accumulate,
        parent=None if teacher is None else lambda: teacher("parent"),
    )
    return tuple(
        WeightedLoss(
            name=name,
            loss=shop.registry.build("loss", loss.use, loss.options, setup=setup),
            weight=loss.weight,
            options=loss.options,
        )
        for name, loss in section.losses.items()
    )
