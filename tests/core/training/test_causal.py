"""The causal trainer: order, exactness under accumulation, logs, evaluation."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from datasets import Dataset
from phasegate.core.config.schema import Weight
from phasegate.core.training.job import StepJob, build_trainer
from phasegate.core.training.mixin import DivergedError
from phasegate.core.training.release import release
from phasegate.core.training.terms import LossContext, WeightedLoss
from phasegate.registry.errors import ConfigError, DataError
from transformers import PreTrainedModel, TrainerCallback

Models = Callable[..., PreTrainedModel]
Rows = Callable[..., Dataset]
Jobs = Callable[..., StepJob]
Losses = Callable[..., tuple[WeightedLoss, ...]]


class Watch(TrainerCallback):
    """Keeps the gradients of every optimiser step."""

    def __init__(self) -> None:
        self.gradients: list[dict[str, torch.Tensor]] = []

    def on_pre_optimizer_step(self, *_: Any, model: Any, **__: Any) -> None:
        self.gradients.append({n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None})


class Probe:
    """A loss term that is a parameter: its gradient must be its weight, however the step is split."""

    def __init__(self, parameter: torch.Tensor) -> None:
        self.parameter, self.steps, self.contexts = parameter, 0, []

    def __call__(self, ctx: LossContext) -> torch.Tensor:
        self.contexts.append(ctx)
        return self.parameter.sum()

    def after_step(self) -> None:
        self.steps += 1

    def state_dict(self) -> dict[str, torch.Tensor]:
        return {}

    def load_state_dict(self, state: Any) -> None: ...


def _run(job: StepJob) -> Any:
    trainer = build_trainer(job)
    trainer.train()
    release(trainer)
    return trainer


def test_rows_are_seen_in_their_order(make_model: Models, causal_rows: Rows, make_job: Jobs) -> None:
    model, rows, seen = make_model(), causal_rows(12), []
    model.register_forward_pre_hook(lambda _m, _a, kw: seen.append(kw["input_ids"].clone()), with_kwargs=True)
    _run(make_job(model, rows, {"steps": 3, "rows": 4, "accumulate": 2}))
    assert torch.cat(seen).tolist() == rows["input_ids"][:]


@pytest.mark.parametrize("accumulate", [1, 4])
def test_a_term_weighs_what_it_says_however_the_step_is_split(
    make_model: Models, causal_rows: Rows, make_job: Jobs, accumulate: int
) -> None:
    model, watch = make_model(), Watch()
    model.probe = torch.nn.Parameter(torch.zeros(1))
    term = WeightedLoss(name="probe", loss=Probe(model.probe), weight=0.5, options={})
    section = {"steps": 2, "rows": 4, "accumulate": accumulate}
    _run(make_job(model, causal_rows(8), section, losses=(term,), callbacks=[watch]))
    assert [g["probe"].item() for g in watch.gradients] == pytest.approx([0.5, 0.5])
    assert term.loss.steps == 2


def test_accumulating_eight_micro_batches_equals_one_batch(
    make_model: Models, causal_rows: Rows, make_job: Jobs, make_losses: Losses
) -> None:
    runs = []
    for accumulate in (1, 8):
        model, watch = make_model(), Watch()
        section = {"steps": 4, "rows": 8, "accumulate": accumulate, "learning_rate": 0.01}
        job = make_job(model, causal_rows(32), section, losses=make_losses(model), callbacks=[watch])
        trainer = _run(job)
        runs.append((watch.gradients, trainer.state.log_history))
    (whole, whole_log), (split, split_log) = runs
    # The first step starts from the same bits: only the order of fp32 additions differs.
    for name, gradient in whole[0].items():
        torch.testing.assert_close(split[0][name], gradient, rtol=1e-4, atol=1e-7)
    for first, second in zip(whole_log[:4], split_log[:4], strict=True):
        for key, value in first.items():
            if key.startswith(("loss", "grad_norm")):
                assert second[key] == pytest.approx(value, rel=2e-4, abs=1e-6), key


def test_a_step_is_counted_once_whatever_its_split(make_model: Models, causal_rows: Rows, make_job: Jobs) -> None:
    shares = []
    for section in ({"accumulate": 1}, {"accumulate": 4}, {"activation_checkpointing": True}):
        model = make_model()
        job = make_job(model, causal_rows(4), {"steps": 1, "rows": 4, **section})
        trainer = _run(job)
        shares.append(trainer.statistics.last_counts)
    assert shares[0].sum() == 2 * 4 * 12 * 2  # layers, rows, tokens, top-k
    assert (shares[0] == shares[1]).all()
    assert (shares[0] == shares[2]).all()


def test_every_term_is_logged_raw_and_weighted(
    make_model: Models, causal_rows: Rows, make_job: Jobs, make_losses: Losses
) -> None:
    model = make_model()
    losses = make_losses(model, balance=Weight(start=0.5, end=0.1, over=1.0), z=0.01)
    logs = _run(make_job(model, causal_rows(8), {"steps": 2, "rows": 4}, losses=losses)).state.log_history
    assert logs[0]["loss/balance"] == pytest.approx(1.0, abs=1e-5)  # an empty window is uniform
    assert logs[0]["loss/balance/weighted"] == pytest.approx(0.5, abs=1e-5)
    assert logs[1]["loss/balance/weighted"] == pytest.approx(0.3 * logs[1]["loss/balance"], rel=1e-5)
    total = logs[0]["loss/task"] + logs[0]["loss/balance/weighted"] + logs[0]["loss/z/weighted"]
    assert logs[0]["loss"] == pytest.approx(total, rel=1e-5)


def test_router_statistics_are_logged(make_model: Models, causal_rows: Rows, make_job: Jobs) -> None:
    logs = _run(make_job(make_model(), causal_rows(4), {"steps": 1, "rows": 4})).state.log_history[0]
    assert 0.0 <= logs["router/load_min"] <= 0.25 <= logs["router/load_max"] <= 0.5
    assert 0.0 < logs["router/token_entropy"] <= math.log(4)
    assert logs["router/mutual_information"] >= 0.0
    assert {key for key in logs if key.startswith("router/entropy/")} <= {
        "router/entropy/general",
        "router/entropy/code",
        "router/entropy/science",
    }


def test_logs_average_over_the_steps_between_them(make_model: Models, causal_rows: Rows, make_job: Jobs) -> None:
    section = {"steps": 4, "rows": 2}
    every = _run(make_job(make_model(), causal_rows(8), section)).state.log_history
    rare = _run(make_job(make_model(), causal_rows(8), section, logging_steps=4)).state.log_history
    mean = sum(row["loss/task"] for row in every[:4]) / 4
    assert rare[0]["loss/task"] == pytest.approx(mean, rel=1e-6)


def test_the_last_step_is_logged_even_between_logging_steps(
    make_model: Models, causal_rows: Rows, make_job: Jobs
) -> None:
    job = make_job(make_model(), causal_rows(6), {"steps": 3, "rows": 2}, logging_steps=2)
    assert [row["step"] for row in _run(job).state.log_history if "loss" in row] == [2, 3]


def test_evaluation_sees_the_task_loss_alone(
    make_model: Models, causal_rows: Rows, make_job: Jobs, make_losses: Losses
) -> None:
    rows = causal_rows(8)
    losses = []
    for weights in ({}, {"balance": 100.0}):
        model = make_model()
        terms = make_losses(model, **weights) if weights else ()
        trainer = build_trainer(make_job(model, rows, {"steps": 2, "rows": 4}, heldout=rows, losses=terms))
        losses.append(trainer.evaluate()["eval_loss"])
        release(trainer)
    assert losses[0] == losses[1]


def test_the_librarys_own_balance_loss_stays_off(make_model: Models, causal_rows: Rows, make_job: Jobs) -> None:
    gradients = []
    for coefficient in (0.0, 50.0):
        model, watch = make_model(output_router_logits=True, router_aux_loss_coef=coefficient), Watch()
        trainer = build_trainer(make_job(model, causal_rows(4), {"steps": 1, "rows": 4}, callbacks=[watch]))
        trainer.train()
        release(trainer)
        gradients.append(watch.gradients[0]["model.layers.0.mlp.gate.weight"])
        assert model.config.output_router_logits is True
        assert model.config.router_aux_loss_coef == coefficient
    assert torch.equal(*gradients)


def test_documents_in_one_row_do_not_see_each_other(make_model: Models, causal_rows: Rows, make_job: Jobs) -> None:
    rows = causal_rows(4)
    halves = {
        key: [part for row in rows[key] for part in ([row[:6], row[6:]] if isinstance(row, list) else [row, row])]
        for key in ("input_ids", "position_ids", "domain")
    }
    model = make_model().eval()
    ids = torch.tensor(halves["input_ids"])
    with torch.no_grad():
        apart = torch.log_softmax(model(ids, use_cache=False)["logits"], -1)
    packed = build_trainer(make_job(make_model(), rows, {"steps": 1, "rows": 4}, heldout=rows))
    loss = packed.evaluate()["eval_loss"]
    release(packed)
    within = -apart[:, :-1].gather(-1, ids[:, 1:, None]).squeeze(-1).sum()
    # The token after a boundary is predicted from the end of the document before it, which packing leaves in.
    across = -apart[0::2, -1].gather(-1, ids[1::2, :1]).sum()
    assert loss == pytest.approx(float(within + across) / (4 * 11), rel=1e-5)


def test_tokens_of_unknown_domain_count_towards_load_only(
    make_model: Models, causal_rows: Rows, make_job: Jobs
) -> None:
    rows = causal_rows(4).remove_columns("domain").add_column("domain", [-1] * 4)
    logs = _run(make_job(make_model(), rows, {"steps": 1, "rows": 4})).state.log_history[0]
    assert "router/load_max" in logs
    assert not any(key.startswith("router/entropy/") for key in logs)


def test_a_dense_model_trains_without_router_facts(make_model: Models, causal_rows: Rows, make_job: Jobs) -> None:
    model = make_model(mlp_only_layers=[0, 1])
    logs = _run(make_job(model, causal_rows(4), {"steps": 1, "rows": 4})).state.log_history[0]
    assert logs["loss/task"] == pytest.approx(logs["loss"])
    assert not any(key.startswith("router/") for key in logs)


def test_a_loss_that_is_no_number_stops_the_step(make_model: Models, causal_rows: Rows, make_job: Jobs) -> None:
    model = make_model()
    with torch.no_grad():
        model.model.norm.weight.fill_(float("nan"))
    trainer = build_trainer(make_job(model, causal_rows(4), {"steps": 1, "rows": 4}))
    with pytest.raises(DivergedError, match="the causal loss is nan at step 1 of 1; lower learning_rate"):
        trainer.train()
    release(trainer)


def test_rows_that_do_not_divide_are_refused(make_model: Models, causal_rows: Rows, make_job: Jobs) -> None:
    with pytest.raises(ConfigError, match=r"rows 4 cannot be split .* accumulate 3; make rows a multiple of 3"):
        build_trainer(make_job(make_model(), causal_rows(4), {"steps": 1, "rows": 4, "accumulate": 3}))


def test_a_data_set_of_the_wrong_length_is_refused(make_model: Models, causal_rows: Rows, make_job: Jobs) -> None:
    with pytest.raises(DataError, match="needs steps x rows = 2 x 4 = 8 training rows in order, but got 4"):
        build_trainer(make_job(make_model(), causal_rows(4), {"steps": 2, "rows": 4}))


def test_an_option_that_nobody_reads_is_refused(make_model: Models, causal_rows: Rows, make_job: Jobs) -> None:
    with pytest.raises(ConfigError, match="a causal step has no option 'beta'"):
        build_trainer(make_job(make_model(), causal_rows(4), {"steps": 1, "rows": 4, "options": {"beta": 0.1}}))


def test_progress_and_step_reach_the_terms(make_model: Models, causal_rows: Rows, make_job: Jobs) -> None:
    model = make_model()
    probe = Probe(next(model.parameters()))
    term = WeightedLoss(name="probe", loss=probe, weight=0.0, options={})
    _run(make_job(model, causal_rows(8), {"steps": 4, "rows": 2}, losses=(term,)))
    assert [(ctx.step, ctx.progress) for ctx in probe.contexts] == [(0, 0.0), (1, 0.25), (2, 0.5), (3, 0.75)]
    assert probe.contexts[0].records[0].logits.shape == (24, 4)
    assert probe.contexts[0].mask.all()


def test_bf16_trains_and_leaves_the_weights_in_fp32(
    make_model: Models, causal_rows: Rows, make_job: Jobs, make_losses: Losses
) -> None:
    model = make_model()
    job = make_job(model, causal_rows(8), {"steps": 2, "rows": 4}, losses=make_losses(model), precision="bf16")
    logs = _run(job).state.log_history
    assert all(math.isfinite(value) for key, value in logs[0].items() if key.startswith("loss"))
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    assert "forward" not in model.__dict__


def test_loss_free_bias_moves_the_selection_once_per_optimiser_step(
    platform_model: PreTrainedModel, causal_rows: Rows, make_job: Jobs, make_losses: Losses
) -> None:
    losses = make_losses(platform_model, loss_free_bias=1.0)
    section = {"steps": 2, "rows": 4, "accumulate": 2}
    trainer = _run(make_job(platform_model, causal_rows(8), section, losses=losses))
    biases = [module.selection_bias for _, _, module in trainer.capture.routers]
    steps = torch.stack(biases) / 1e-3
    assert steps.abs().max() > 0.0
    torch.testing.assert_close(steps, steps.round(), atol=1e-3, rtol=0.0)
    assert steps.abs().max() < 2.5  # two optimiser steps, not four micro-batches


def test_training_prints_nothing(
    make_model: Models, causal_rows: Rows, make_job: Jobs, capsys: pytest.CaptureFixture[str]
) -> None:
    _run(make_job(make_model(), causal_rows(4), {"steps": 1, "rows": 4}))
    assert capsys.readouterr().out == ""
