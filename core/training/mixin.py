"""The trainer mixin: loss terms, replay, router statistics, schedules and freezing, the same in every trainer."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR
from transformers import PrinterCallback, TrainerCallback

from ...registry.errors import PhasegateError
from ..model.router import RouterBase
from .accounting import MicroBatch, account, following, row_domains
from .capture import Recording, RouterCapture
from .checkpoint import PluginState, check_weights, no_missing_key_warnings, writing
from .freezing import freeze, parameter_groups
from .pairs import Pairs, RowCounts
from .routing import route
from .schedules import learning_rate_factor, weight_at
from .statistics import RouterStatistics
from .terms import LossContext
from .window import sum_over_processes

if TYPE_CHECKING:
    from .job import StepJob


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Seen:
    """What the routers saw in the forwards of a micro-batch, one entry each: the task's, and that of replayed rows."""

    recordings: list[Recording]
    masks: list[torch.Tensor | None]  # shape: (B, T)
    domains: list[torch.Tensor]  # shape: (B * T,)
    orders: list[torch.Tensor | None]  # shape: (B * T,)


class DivergedError(PhasegateError):
    """A task loss that is no number any more."""


class PhaseTrainerMixin:
    """Goes before a trainer in the bases: ``class CausalPhaseTrainer(PhaseTrainerMixin, Trainer)``.

    Adds to the trainer's own loss: every loss term of the job by its weight schedule, and the language-modelling loss
    of a replay batch; evaluation sees the task loss alone. Exact, up to the order of fp32 additions, under
    accumulation and data parallelism: terms and replay are normalised by the tokens of the *whole* optimiser step
    (terms over pairs by its rows), which are counted when its micro-batches are fetched. (The task loss is as exact as
    its trainer: Trainer and SFTTrainer normalise by the step's supervised tokens; DPOTrainer averages micro-batches, so
    its ``sft`` part, a mean over tokens, varies with the split where completions differ in length.)

    Logs per logging step, with one device synchronisation: ``loss/task``, ``loss/<name>`` raw and
    ``loss/<name>/weighted`` per term, ``loss/replay``, and ``router/*`` (see ``RouterStatistics.summary``).
    """

    # Attributes of transformers.Trainer that are read here.
    accelerator: Any
    args: Any
    compute_loss_func: Any
    current_gradient_accumulation_steps: int
    is_deepspeed_enabled: bool
    is_fsdp_enabled: bool
    loss_is_scaled_for_ga: bool | None
    lr_scheduler: Any
    model: Any
    model_accepts_loss_kwargs: bool
    optimizer: Any
    state: Any

    # Of a trainer whose rows have kinds: their names, the step's counts for it to read, and what it leaves for terms.
    kinds: tuple[str, ...] = ()
    row_counts: RowCounts | None = None
    pairs: Pairs | None = None

    def __init__(self, *args: Any, job: StepJob, **kwargs: Any) -> None:
        self.job = job
        config = job.model.config
        self.original_flags = {
            key: getattr(config, key)
            for key in ("output_router_logits", "router_aux_loss_coef", "use_cache")
            if hasattr(config, key)
        }
        # The library's own balance loss would be multiplied by accumulation steps and processes.
        if "output_router_logits" in self.original_flags:
            config.output_router_logits = False
        self.trainable = freeze(job.model, job.section.freeze)
        self._plugin_state = PluginState(job)
        kwargs["callbacks"] = [_AfterStep(job), *kwargs.pop("callbacks", ()), self._plugin_state]
        super().__init__(*args, **kwargs)
        self._plugin_state.wait = self.accelerator.wait_for_everyone
        self.remove_callback(PrinterCallback)  # type: ignore[attr-defined]
        self.capture = RouterCapture(self.model)
        self._replayed_only = job.replay is not None and job.section.replay.routing == "replayed"
        self.statistics = RouterStatistics(job.domains)
        self._micro: Iterator[MicroBatch] = iter(())
        self._names = self._log_names()
        self._sums: torch.Tensor | None = None
        self._logged_at = 0
        self._flops_per_token = 6 * self.model.num_parameters(exclude_embeddings=True)

    def train(self, resume_from_checkpoint: str | None = None, **kwargs: Any) -> Any:
        """Train, or go on from a complete checkpoint folder, loss terms and callbacks included."""
        folder = Path(self.args.output_dir)
        if resume_from_checkpoint is None:
            with writing(folder):
                return super().train(**kwargs)  # type: ignore[misc]
        check_weights(self.model, Path(resume_from_checkpoint))
        self._logged_at = self._plugin_state.restore(resume_from_checkpoint)
        with no_missing_key_warnings(), writing(folder):
            return super().train(resume_from_checkpoint=resume_from_checkpoint, **kwargs)  # type: ignore[misc]

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Save the weights under the names they have in the model.

        The library's default renames the stacked experts of stock MoE families to one name per expert; its resume
        then does not find them and goes on with whatever experts the model happens to have, with a warning.
        """
        if self.is_fsdp_enabled or self.is_deepspeed_enabled:
            super().save_model(output_dir, _internal_call)  # type: ignore[misc]
        elif self.args.should_save:
            self.model.save_pretrained(output_dir or self.args.output_dir, save_original_format=False)

    # ---- loss

    def get_batch_samples(
        self, epoch_iterator: Iterator[Any], num_batches: int, device: torch.device
    ) -> tuple[list[Any], Any]:
        """Fetch an optimiser step's micro-batches and count their tokens."""
        samples, items = super().get_batch_samples(epoch_iterator, num_batches, device)  # type: ignore[misc]
        stream, replays = self.job.replay, []
        if stream is not None and samples:
            place = (self.args.process_index, self.args.world_size)
            for number in range(len(samples)):
                batch = stream.batch(self.state.global_step, number, *place)
                replays.append({key: value.to(self.args.device) for key, value in batch.items()})
        if samples:
            count, only = len(self.job.domains), self._replayed_only
            self._micro = iter(account(samples, replays, count, replayed_only=only, kinds=len(self.kinds)))
        return samples, items

    def compute_loss(
        self, model: nn.Module, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """The task loss of the trainer plus, in training, weighted terms and replay."""
        domain = row_domains(inputs)
        inputs.pop("domain", None)
        order = following(inputs) if self.job.losses else None
        if not model.training or not torch.is_grad_enabled():
            return super().compute_loss(  # type: ignore[misc]
                model, inputs, return_outputs=return_outputs, num_items_in_batch=num_items_in_batch
            )
        micro, mask = next(self._micro), inputs.get("attention_mask")
        self.row_counts = micro.rows
        shape = inputs["input_ids"].shape
        recordings: list[Recording] = []
        domains, masks, orders = [], [], []
        with self.capture.recording() as recording:
            result = super().compute_loss(  # type: ignore[misc]
                model, inputs, return_outputs=return_outputs, num_items_in_batch=num_items_in_batch
            )
        if not self._replayed_only:
            recordings.append(recording)
            domains.append(domain.repeat_interleave(shape[1]))
            masks.append(mask)
            orders.append(order)
        task, outputs = result if return_outputs else (result, None)
        replayed = None
        if micro.replay is not None:
            with self.capture.recording() as recording:
                replayed = self._replay_loss(model, micro)
            recordings.append(recording)
            length = micro.replay["input_ids"].shape[1]
            domains.append(row_domains(micro.replay).repeat_interleave(length))
            masks.append(micro.replay.get("attention_mask"))
            orders.append(following(micro.replay) if self.job.losses else None)
        # The trainer divides by accumulation steps after us unless the task loss is already normalised, and data
        # parallelism averages over processes: both are undone for what is normalised over the whole step.
        steps = 1 if self._already_scaled(num_items_in_batch) else self.current_gradient_accumulation_steps
        seen = Seen(recordings=recordings, masks=masks, domains=domains, orders=orders)
        extra, values = self._extra(seen, micro, replayed)
        self._note(torch.stack([task.detach() / steps, *(self.args.world_size * value for value in values)]))
        loss = task if extra is None else task + (steps * self.args.world_size) * extra.to(task.device)
        self.last_loss = loss.detach()
        return (loss, outputs) if return_outputs else loss

    def _extra(
        self, seen: Seen, micro: MicroBatch, replayed: torch.Tensor | None
    ) -> tuple[torch.Tensor | None, list[torch.Tensor]]:
        """This micro-batch's part of the step's weighted terms and replay, and the parts to log, in log order."""
        job, extra, values = self.job, None, []
        if replayed is not None:
            extra = job.section.replay.weight * replayed
        if job.replay is not None:
            values.append(micro.tokens.own.new_zeros(()) if replayed is None else replayed.detach())
        context = self._context(seen, micro)
        for term in job.losses:
            if context.routing is None and not term.over_pairs:
                # A model without routers does not log such a term; a micro-batch without replayed rows adds nothing.
                values += [micro.tokens.own.new_zeros(())] * (2 + len(term.facts) if self.capture.routers else 0)
                continue
            value, told = term.loss(context), term.told()
            if not term.over_pairs:
                assert context.routing is not None
                value = value * context.routing.fraction
                told = [fact * context.routing.fraction for fact in told]
            weighted = weight_at(term.weight, context.progress) * value
            extra = weighted if extra is None else extra + weighted
            values += [value.detach(), weighted.detach(), *told]
        return extra, values

    def _context(self, seen: Seen, micro: MicroBatch) -> LossContext:
        """What the terms see of this micro-batch; without routers, or without a forward that they were to see, there
        are no records and no routing."""
        routing, records, follows = None, [], None
        mask = where = torch.zeros(0, dtype=torch.int64, device=micro.tokens.own.device)
        if self.capture.routers and seen.recordings:
            everywhere = [
                torch.ones_like(place, dtype=torch.bool) if valid is None else valid.flatten().bool()
                for valid, place in zip(seen.masks, seen.domains, strict=True)
            ]
            records, mask, where = self.capture.records(*seen.recordings), _joined(everywhere), _joined(seen.domains)
            padded = any(valid is not None for valid in seen.masks)
            follows = _joined([order for order in seen.orders if order is not None]) if self.job.losses else None
            routing = route(records, mask if padded else None, where, len(self.job.domains), micro.tokens)
            self.statistics.add(routing)
        return LossContext(
            model=self.model,
            records=records,
            mask=mask.bool(),
            domain=where,
            domains=self.job.domains,
            step=self.state.global_step,
            progress=self._progress(),
            routing=routing,
            pairs=self.pairs,
            follows=follows,
        )

    def _replay_loss(self, model: nn.Module, micro: MicroBatch) -> torch.Tensor:
        """Cross-entropy of a replay batch over the supervised replay tokens of the whole step (pretraining-mix loss:
        Ouyang 2022, InstructGPT, 2203.02155)."""
        assert micro.replay is not None
        inputs = {key: value for key, value in micro.replay.items() if key != "domain"}
        loss: torch.Tensor = model(**inputs, use_cache=False, num_items_in_batch=micro.replay_labels)["loss"]
        return loss

    def _already_scaled(self, num_items_in_batch: Any) -> bool:
        # The rule of Trainer.training_step.
        if self.loss_is_scaled_for_ga is not None:
            return self.loss_is_scaled_for_ga
        return (self.model_accepts_loss_kwargs and num_items_in_batch is not None) or self.compute_loss_func is not None

    def _progress(self) -> float:
        return float(self.state.global_step / max(1, self.state.max_steps))

    # ---- logs

    def _log_names(self) -> list[str]:
        names = ["loss/task"] + (["loss/replay"] if self.job.replay is not None else [])
        for term in self.job.losses:
            if self.capture.routers or term.over_pairs:
                names += [f"loss/{term.name}", f"loss/{term.name}/weighted"]
                names += [f"loss/{term.name}/{fact}" for fact in term.facts]
        return names

    def _note(self, values: torch.Tensor) -> None:
        self._sums = values if self._sums is None else self._sums + values

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Add terms and router statistics to a training log.

        Raises ``DivergedError`` if the task loss is not finite.
        """
        if "loss" in logs and self._sums is not None:
            logs |= self._drain(self._sums)
            self._sums = None
            if not math.isfinite(logs["loss/task"]):
                raise DivergedError(
                    f"the {self.job.objective} loss is {logs['loss/task']} at step {self.state.global_step} of "
                    f"{self.state.max_steps}; lower learning_rate or raise warmup"
                )
        super().log(logs, start_time)  # type: ignore[misc]

    def _drain(self, sums: torch.Tensor) -> Mapping[str, float]:
        taken = self.statistics.take()
        vector = sums if taken is None else torch.cat([sums, taken.to(sums.device)])
        host: np.ndarray[Any, Any] = sum_over_processes(vector).cpu().numpy()
        steps = max(1, self.state.global_step - self._logged_at)
        self._logged_at = self.state.global_step
        count = len(self._names)
        means = host[:count].astype(np.float64) / (steps * self.args.world_size)
        logs = {name: float(value) for name, value in zip(self._names, means, strict=True)}
        if taken is not None:
            logs |= self.statistics.summary(host[count:], self.capture.top_k)
        return logs

    # ---- optimiser

    def create_optimizer(self, model: nn.Module | None = None) -> Any:
        """The configured optimiser over groups by role: see ``parameter_groups``."""
        if self.optimizer is None:
            module = self.model if model is None else model
            target, options = self.get_optimizer_cls_and_kwargs(self.args, module)  # type: ignore[attr-defined]
            section = self.job.section
            groups = parameter_groups(
                module,
                self.trainable,
                section.learning_rate_scale,
                self.get_decay_parameter_names(module),  # type: ignore[attr-defined]
                options["lr"],
                section.weight_decay,
            )
            self.optimizer = target(groups, **options)
        return self.optimizer

    def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> Any:
        """The section's schedule: see ``learning_rate_factor``."""
        if self.lr_scheduler is None:
            factor = learning_rate_factor(self.job.section)
            self.lr_scheduler = LambdaLR(self.optimizer if optimizer is None else optimizer, factor)
        return self.lr_scheduler

    # ---- cheaper or quieter than the library's

    def floating_point_ops(self, inputs: Mapping[str, Any]) -> int:
        """6 per parameter outside the embedding and token; counted once, not in every micro-batch."""
        return int(self._flops_per_token * inputs["input_ids"].numel())

    def create_model_card(self, *args: Any, **kwargs: Any) -> None:
        """Write none: a stage's manifest says what made it."""


class _AfterStep(TrainerCallback):
    """Ends the optimiser step for every loss term, and for every router that trains."""

    def __init__(self, job: StepJob) -> None:
        self._losses = [term.loss for term in job.losses]
        # The owner of shared parameters is among them, whatever its own parameters do.
        self._routers = [module for module in job.model.modules() if isinstance(module, RouterBase)]

    def on_step_end(self, _args: Any, state: Any, *_: Any, **__: Any) -> None:
        for loss in self._losses:
            loss.after_step()
        for router in self._routers:
            if any(parameter.requires_grad for parameter in router.parameters()):
                router.after_step(state.global_step / max(1, state.max_steps))


def _joined(parts: list[torch.Tensor]) -> torch.Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(parts)
