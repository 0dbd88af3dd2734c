"""Published bugs planted one at a time: each changes what an experiment does and leaves its losses looking normal."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

ONE, TWO, THREE = "order=foundation", "order=foundation>specialization", "order=foundation>specialization>alignment"

Plant = Callable[[pytest.MonkeyPatch], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Bug:
    """A bug: how it is planted, on which experiment, and the proofs that catch it, the one that names it first."""

    plant: Plant
    caught_by: tuple[str, ...]
    overrides: tuple[str, ...] = (ONE,)


def around(patch: pytest.MonkeyPatch, owner: Any, name: str, change: Callable[..., Any]) -> None:
    """Replace ``owner.name`` by ``change(original, *arguments)``."""
    original = getattr(owner, name)
    patch.setattr(owner, name, lambda *a, **k: change(original, *a, **k))


def not_added(patch: pytest.MonkeyPatch) -> None:
    from phasegate.core.training.mixin import PhaseTrainerMixin

    around(patch, PhaseTrainerMixin, "_extra", lambda extra, *a: (None, extra(*a)[1]))


def coefficient_ignored(patch: pytest.MonkeyPatch) -> None:
    from phasegate.core.training import mixin

    patch.setattr(mixin, "weight_at", lambda weight, progress: 0.01)


def router_without_gradient(patch: pytest.MonkeyPatch) -> None:
    from phasegate.plugins.routers.linear import LinearRouter

    def forward(original: Any, *arguments: Any) -> Any:
        with torch.no_grad():
            return original(*arguments)

    around(patch, LinearRouter, "forward", forward)


def mask_of_ones(patch: pytest.MonkeyPatch) -> None:
    from phasegate.core.training.collating import ChatCollator

    def call(original: Any, self: Any, rows: Any) -> Any:
        batch = original(self, rows)
        batch["labels"] = torch.where(batch["attention_mask"] == 1, batch["input_ids"], -100)
        return batch

    around(patch, ChatCollator, "__call__", call)


def mask_of_zeros(patch: pytest.MonkeyPatch) -> None:
    from phasegate.core.training.collating import ChatCollator

    def call(original: Any, self: Any, rows: Any) -> Any:
        batch = original(self, rows)
        batch["labels"] = torch.full_like(batch["labels"], -100)
        return batch

    around(patch, ChatCollator, "__call__", call)


def accumulation_counts(patch: pytest.MonkeyPatch) -> None:
    from phasegate.core.training.mixin import PhaseTrainerMixin

    patch.setattr(PhaseTrainerMixin, "_already_scaled", lambda self, items: False)


def rope_without_effect(patch: pytest.MonkeyPatch) -> None:
    from phasegate.core.model import rope

    def extend(original: Any, model: Any, *arguments: Any) -> Any:
        before = list(rope._rotary_modules(model))
        original(model, *arguments)
        for parent, name, module in before:
            setattr(parent, name, module)
        return model

    around(patch, rope, "extend_context", extend)


def unknown_key_dropped(patch: pytest.MonkeyPatch) -> None:
    from phasegate.core.config.problems import Problems

    def add(original: Any, self: Any, path: Any, text: str) -> None:
        if "has no key" not in text:
            original(self, path, text)

    around(patch, Problems, "add", add)


def replay_share_ignored(patch: pytest.MonkeyPatch) -> None:
    from phasegate.core.data import step_data

    around(patch, step_data, "deal", lambda deal, *a, **k: deal(*a, **{**k, "replay_share": 0.0}))


def mixture_ignored(patch: pytest.MonkeyPatch) -> None:
    from phasegate.core.config.schema import BatchSection
    from phasegate.core.data import step_data

    around(patch, step_data, "deal", lambda deal, section, *a, **k: deal(BatchSection(), *a, **k))


def hook_never_called(patch: pytest.MonkeyPatch) -> None:
    from phasegate.core.training.hooks import StepHook

    patch.setattr(StepHook, "on_step_end", lambda *a, **k: None)


def expert_lost_on_save(patch: pytest.MonkeyPatch) -> None:
    from phasegate.core.model import loading
    from safetensors.torch import load_file, save_file

    def save(original: Any, model: Any, tokenizer: Any, folder: Any, **more: Any) -> None:
        original(model, tokenizer, folder, **more)
        path = Path(folder) / "model.safetensors"
        tensors = load_file(path)
        for name, tensor in tensors.items():
            if name.endswith("experts.down_proj"):
                tensor[-1] = 0.0
        save_file(tensors, path, metadata={"format": "pt"})

    around(patch, loading, "save_model", save)


def expert_lost_on_export(patch: pytest.MonkeyPatch) -> None:
    from phasegate.core.model import exporting

    def portable(original: Any, model: Any, *arguments: Any) -> Any:
        stock = original(model, *arguments)
        with torch.no_grad():
            for name, parameter in stock.named_parameters():
                if name.endswith("experts.down_proj"):
                    parameter[-1] = 0.0
        return stock

    around(patch, exporting, "_as_qwen3", portable)


def load_counted_twice(patch: pytest.MonkeyPatch) -> None:
    from phasegate.core.training.mixin import PhaseTrainerMixin

    def context(original: Any, self: Any, *arguments: Any) -> Any:
        made = original(self, *arguments)
        if self.model.is_activation_checkpointing:
            self.statistics.add(made.routing)
        return made

    around(patch, PhaseTrainerMixin, "_context", context)


def frozen_moves(patch: pytest.MonkeyPatch) -> None:
    from phasegate.core.training import mixin

    around(patch, mixin, "freeze", lambda freeze, model, patterns: freeze(model, ()))


def trainable_stays(patch: pytest.MonkeyPatch) -> None:
    from phasegate.core.training import mixin

    def groups(original: Any, model: Any, *arguments: Any) -> Any:
        norms = {id(p) for n, p in model.named_parameters() if n.endswith("model.norm.weight")}
        made = original(model, *arguments)
        return [{**group, "params": [p for p in group["params"] if id(p) not in norms]} for group in made]

    around(patch, mixin, "parameter_groups", groups)


def router_state_missing(patch: pytest.MonkeyPatch) -> None:
    def load(original: Any, self: Any, state: Any) -> None:
        original(self, state)
        for parameter in [p for p in self.state if tuple(p.shape) == (6, 32)]:  # experts x width: a router
            del self.state[parameter]

    around(patch, torch.optim.Optimizer, "load_state_dict", load)


def quantizer_misses_experts(patch: pytest.MonkeyPatch) -> None:
    from phasegate.core.model.quantization import Quantization

    def effective(original: Any, self: Any, name: str, weight: Any) -> Any:
        return weight if name.endswith("gate_up_proj") else original(self, name, weight)

    around(patch, Quantization, "effective", effective)


def evaluation_leaves_mode(patch: pytest.MonkeyPatch) -> None:
    from phasegate.plugins.gates.choice import ChoiceGate

    def measure(original: Any, self: Any, context: Any) -> Any:
        result = original(self, context)
        context.model.eval()
        return result

    around(patch, ChoiceGate, "measure", measure)


def evaluation_draws(patch: pytest.MonkeyPatch) -> None:
    from phasegate.plugins.gates.choice import ChoiceGate

    def measure(original: Any, self: Any, context: Any) -> Any:
        random.random()
        torch.rand(1)
        return original(self, context)

    around(patch, ChoiceGate, "measure", measure)


def cached_score(patch: pytest.MonkeyPatch) -> None:
    from phasegate.plugins.gates.choice import ChoiceGate

    kept: dict[str, Any] = {}

    def measure(original: Any, self: Any, context: Any) -> Any:
        key = f"{self.config} {context.documents}"
        if key not in kept:
            kept[key] = original(self, context)
        return kept[key]

    around(patch, ChoiceGate, "measure", measure)


def order_repeated(patch: pytest.MonkeyPatch) -> None:
    from phasegate.core.training import trainers

    around(patch, trainers, "arguments", lambda given, job: {**given(job), "ignore_data_skip": True})


def rows_shuffled(patch: pytest.MonkeyPatch) -> None:
    from phasegate.core.training import trainers

    around(patch, trainers, "arguments", lambda given, job: {**given(job), "train_sampling_strategy": "random"})


def teacher_not_frozen(patch: pytest.MonkeyPatch) -> None:
    from phasegate.core.training import release

    patch.setattr(release, "frozen_copy", copy.deepcopy)


def policy_ignored(patch: pytest.MonkeyPatch) -> None:
    from phasegate.core.run import stage
    from phasegate.core.run.policy import Decision
    from phasegate.core.verify import policies

    for module in (stage, policies):
        patch.setattr(module, "decide", lambda *a, **k: Decision(action="advance", reason="whatever came out"))


_RESUMED = "resume ends in the same bits"

#: The bugs that users of training systems reported, by what they called them.
PUBLISHED: dict[str, Bug] = {
    "auxiliary loss computed but not added": Bug(plant=not_added, caught_by=("loss term is in the gradient",)),
    "auxiliary coefficient ignored": Bug(plant=coefficient_ignored, caught_by=("loss weight counts",)),
    "router without gradient": Bug(
        plant=router_without_gradient,
        caught_by=("routers learn", "loss term is in the gradient", "trainable parameters move"),
    ),
    "loss mask all ones": Bug(plant=mask_of_ones, caught_by=("supervised tokens",), overrides=(THREE,)),
    "loss mask all zeros": Bug(plant=mask_of_zeros, caught_by=("supervised tokens",), overrides=(THREE,)),
    "loss changes with gradient accumulation": Bug(
        plant=accumulation_counts, caught_by=("accumulation changes nothing",)
    ),
    "rope scaling without effect": Bug(
        plant=rope_without_effect,
        caught_by=("rotary scaling acts",),
        overrides=(
            ONE,
            "phases.foundation.steps.pretrain.context={rope: ntk, factor: 2}",
            "phases.foundation.steps.pretrain.sequence_length=96",
        ),
    ),
    "unknown key dropped": Bug(plant=unknown_key_dropped, caught_by=("unknown key is refused",)),
    "curriculum mixture ignored": Bug(plant=mixture_ignored, caught_by=("shares of domains",)),
    "replay share ignored": Bug(plant=replay_share_ignored, caught_by=("share of replay",), overrides=(TWO,)),
    "documented hook never called": Bug(plant=hook_never_called, caught_by=("hook is called",)),
    "expert weights lost on save": Bug(plant=expert_lost_on_save, caught_by=("saved as it was trained",)),
    "expert weights lost on export": Bug(plant=expert_lost_on_export, caught_by=("export keeps every expert",)),
    "expert load counted twice under activation checkpointing": Bug(
        plant=load_counted_twice, caught_by=("expert counts with recomputation",)
    ),
    "frozen parameters that move": Bug(
        plant=frozen_moves,
        caught_by=("frozen parameters stay",),
        overrides=(ONE, "phases.foundation.steps.pretrain.freeze=[embedding]"),
    ),
    "trainable parameters that do not move": Bug(plant=trainable_stays, caught_by=("trainable parameters move",)),
    "optimiser state of the router missing after resume": Bug(
        plant=router_state_missing, caught_by=("resume keeps the optimiser", _RESUMED)
    ),
    "quantizer not applied to stacked experts": Bug(
        plant=quantizer_misses_experts,
        caught_by=("quantizer acts", "export keeps every expert"),
        overrides=(ONE, "model.quantizer=ternary"),
    ),
    "evaluation leaves the model in eval mode": Bug(plant=evaluation_leaves_mode, caught_by=("gate leaves no trace",)),
    "evaluation changes the random streams": Bug(plant=evaluation_draws, caught_by=("gate leaves no trace",)),
    "cache returns another model's score": Bug(plant=cached_score, caught_by=("gate asks its model",)),
    "sampler order repeated after resume": Bug(
        plant=order_repeated, caught_by=("resume reads the rows that are left", _RESUMED, "resume keeps the optimiser")
    ),
    "teacher not frozen": Bug(plant=teacher_not_frozen, caught_by=("teacher is frozen",), overrides=(THREE,)),
}

#: More of the kind, that the proofs are there for as well.
FURTHER: dict[str, Bug] = {
    "rows read in another order than the data's": Bug(plant=rows_shuffled, caught_by=("order of rows",)),
    "policy after a failed gate ignored": Bug(plant=policy_ignored, caught_by=("policy decides",)),
}
