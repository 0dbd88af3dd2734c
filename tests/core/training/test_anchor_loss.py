"""The anchor's penalty as a loss term: nothing at first, however a step is split, and a pull once it is weakened."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from datasets import Dataset
from phasegate.core.model.anchors import Guard, Material
from phasegate.core.model.companions import attach, companions_of, trunk_digest
from phasegate.core.model.states import final_states
from phasegate.core.training.job import StepJob, build_trainer
from phasegate.core.training.release import release
from phasegate.core.training.terms import WeightedLoss
from phasegate.registry.errors import ConfigError
from phasegate.registry.plugins import Plugins
from transformers import PreTrainedModel, TrainerCallback

Models = Callable[..., PreTrainedModel]
Rows = Callable[..., Dataset]
Jobs = Callable[..., StepJob]
Losses = Callable[..., tuple[WeightedLoss, ...]]


@pytest.fixture
def guarded(make_model: Models) -> Models:
    """A tiny model with a half-space that tells prompts by their last word."""

    def make(seed: int = 0) -> PreTrainedModel:
        model = make_model(seed)
        prompts = [[10 + number % 30, 11 + number % 7, 7 if number % 2 else 8] for number in range(80)]
        anchor = Plugins.load(()).components().build("anchor", "half-space", {"batch": 4})
        model.eval()
        with torch.no_grad():
            hidden = final_states(model, prompts, 16)
        anchor.capture(
            model,
            Material(
                prompts=prompts,
                hidden=hidden,
                harmful=torch.arange(80) % 2 == 1,
                calibration=torch.arange(80) >= 40,
                kinds=["harmful" if number % 2 else "benign" for number in range(80)],
                false_positives=0.1,
                seed=0,
                batch=16,
            ),
        )
        guard = Guard(
            reference="phasegate:half-space",
            revision=1,
            options={"batch": 4},
            anchor=anchor,
            digest=trunk_digest(model),
            refusal="no",
        )
        attach(model, "anchor", guard)
        return model

    return make


class Watch(TrainerCallback):
    """Keeps the gradients of every optimiser step."""

    def __init__(self) -> None:
        self.gradients: list[dict[str, torch.Tensor]] = []

    def on_pre_optimizer_step(self, *_: Any, model: Any, **__: Any) -> None:
        self.gradients.append({n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None})


def trained(job: StepJob) -> list[dict[str, float]]:
    trainer = build_trainer(job)
    trainer.train()
    history = list(trainer.state.log_history)
    release(trainer)
    return history


def weaken(model: PreTrainedModel) -> None:
    with torch.no_grad():
        model.model.norm.weight.mul_(0.3)


def test_a_model_without_an_anchor_is_told_in_one_sentence(make_model: Models, make_losses: Losses) -> None:
    with pytest.raises(ConfigError, match="this model has none; capture one in an earlier step"):
        make_losses(make_model(), anchor=1.0)


@pytest.mark.parametrize("objective", ["causal", "sft"])
def test_the_term_is_zero_at_first_and_logged_by_name(
    guarded: Models, make_losses: Losses, make_job: Jobs, causal_rows: Rows, chat_rows: Rows, objective: str
) -> None:
    model = guarded()
    rows = causal_rows(8) if objective == "causal" else chat_rows(8)
    section = {"steps": 2, "rows": 4, "learning_rate": 0.0, "weight_decay": 0.0}
    history = trained(make_job(model, rows, section, losses=make_losses(model, anchor=2.0), objective=objective))
    assert [row["loss/anchor"] for row in history if "loss/anchor" in row] == [0.0, 0.0]


def test_the_term_is_the_anchors_penalty(
    guarded: Models, make_losses: Losses, make_job: Jobs, causal_rows: Rows
) -> None:
    model = guarded()
    weaken(model)
    anchor = companions_of(model)["anchor"].anchor
    with torch.no_grad():
        expected = [float(anchor.penalty(model, turn)) for turn in range(2)]
    section = {"steps": 2, "rows": 4, "learning_rate": 0.0, "weight_decay": 0.0}
    history = trained(make_job(model, causal_rows(8), section, losses=make_losses(model, anchor=2.0)))
    found = [(row["loss/anchor"], row["loss/anchor/weighted"]) for row in history if "loss/anchor" in row]
    assert found == [pytest.approx((value, 2 * value), rel=1e-5) for value in expected]
    assert min(expected) > 0


@pytest.mark.parametrize("objective", ["causal", "sft"])
def test_accumulation_changes_nothing(
    guarded: Models, make_losses: Losses, make_job: Jobs, causal_rows: Rows, chat_rows: Rows, objective: str
) -> None:
    gradients = []
    for accumulate in (1, 4):
        model, watch = guarded(), Watch()
        weaken(model)
        rows = causal_rows(4) if objective == "causal" else chat_rows(4)
        section = {"steps": 1, "rows": 4, "accumulate": accumulate}
        trained(
            make_job(
                model, rows, section, losses=make_losses(model, anchor=5.0), objective=objective, callbacks=(watch,)
            )
        )
        gradients.append(watch.gradients[0])
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient, atol=1e-5, rtol=1e-4)


def test_routing_terms_do_not_see_the_reference_prompts(
    guarded: Models, make_losses: Losses, make_job: Jobs, causal_rows: Rows
) -> None:
    logs = []
    for names in ({"balance": 1.0}, {"anchor": 0.0, "balance": 1.0}):
        model = guarded()
        section = {"steps": 2, "rows": 4, "learning_rate": 0.0, "weight_decay": 0.0}
        history = trained(make_job(model, causal_rows(8), section, losses=make_losses(model, **names)))
        logs.append([row["loss/balance"] for row in history if "loss/balance" in row])
    assert logs[0] == logs[1]


def test_training_with_the_term_restores_what_was_lost(
    guarded: Models, make_losses: Losses, make_job: Jobs, causal_rows: Rows
) -> None:
    model = guarded()
    weaken(model)
    anchor = companions_of(model)["anchor"].anchor
    before = float(anchor.penalty(model).detach())
    section = {"steps": 12, "rows": 4, "learning_rate": 3e-2, "weight_decay": 0.0, "schedule": "constant"}
    trained(make_job(model, causal_rows(48), section, losses=make_losses(model, anchor=5.0)))
    assert float(anchor.penalty(model.eval()).detach()) < before / 2


def test_the_guard_stays_with_a_model_that_is_trained_and_knows_that_it_is_stale(
    guarded: Models, make_losses: Losses, make_job: Jobs, causal_rows: Rows
) -> None:
    model = guarded()
    guard = companions_of(model)["anchor"]
    trained(make_job(model, causal_rows(4), {"steps": 1, "rows": 4}, losses=make_losses(model, anchor=1.0)))
    assert companions_of(model)["anchor"] is guard
    assert guard.stale(model)
