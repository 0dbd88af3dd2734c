"""The transition bump."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from datasets import Dataset
from phasegate.core.training.bump import BumpCallback, bump, language_loss
from phasegate.core.training.collating import causal_batch
from phasegate.core.training.job import StepJob, build_trainer
from phasegate.core.training.release import release
from transformers import PreTrainedModel

Models = Callable[..., PreTrainedModel]
Rows = Callable[..., Dataset]


def test_height_and_recovery_of_a_bump() -> None:
    found = bump([(0, 2.0), (10, 2.5), (20, 2.2), (30, 2.005), (40, 1.9)], steps=100, tolerance=0.005)
    assert found is not None
    assert found.height == pytest.approx(0.5)
    assert found.recovery == 0.3


def test_a_loss_that_comes_back_up_has_not_recovered() -> None:
    found = bump([(0, 2.0), (10, 2.5), (20, 1.9), (30, 2.1)], steps=100, tolerance=0.005)
    assert found is not None and found.recovery is None


def test_a_loss_that_never_rises_recovers_at_once() -> None:
    found = bump([(0, 2.0), (10, 1.9)], steps=10, tolerance=0.005)
    assert found is not None
    assert (found.height, found.recovery) == (0.0, 0.0)


def test_nothing_measured_is_no_bump() -> None:
    assert bump([], steps=10, tolerance=0.005) is None


def test_a_loss_that_is_no_number_never_recovers() -> None:
    found = bump([(0, 2.0), (10, float("nan"))], steps=10, tolerance=0.005)
    assert found is not None and found.recovery is None and found.height == float("inf")


def test_the_old_loss_is_measured_before_the_step_and_at_every_interval(
    make_model: Models, causal_rows: Rows, make_job: Callable[..., StepJob]
) -> None:
    model, watched = make_model(), causal_rows(6, seed=5)
    callback = BumpCallback(watched, steps=4, every=0.5, batch_size=4)
    batch = causal_batch([watched.with_format("numpy")[i] for i in range(6)])
    inputs = {key: value for key, value in batch.items() if key != "domain"}
    with torch.no_grad():
        before = float(model.eval()(**inputs, use_cache=False)["loss"])
    section = {"steps": 4, "rows": 2, "learning_rate": 0.01}
    trainer = build_trainer(make_job(model, causal_rows(8), section, callbacks=[callback]))
    trainer.train()
    release(trainer)
    assert [step for step, _ in callback.series] == [0, 2, 4]
    assert callback.series[0][1] == pytest.approx(before, rel=1e-6)
    result = callback.result()
    assert result is not None and result.before == callback.series[0][1]


def test_watching_does_not_disturb_training(
    make_model: Models, causal_rows: Rows, make_job: Callable[..., StepJob]
) -> None:
    bits = []
    for watch in (False, True):
        model = make_model()
        callbacks: list[Any] = [BumpCallback(causal_rows(4, seed=5), steps=4, every=0.25)] if watch else []
        section = {"steps": 4, "rows": 2, "learning_rate": 0.01}
        trainer = build_trainer(make_job(model, causal_rows(8), section, callbacks=callbacks))
        trainer.train()
        release(trainer)
        bits.append({name: value.clone() for name, value in model.state_dict().items()})
    assert all(torch.equal(bits[0][name], bits[1][name]) for name in bits[0])


def test_measuring_leaves_mode_and_random_streams_alone(make_model: Models, causal_rows: Rows) -> None:
    model = make_model().train()
    batch = causal_batch([causal_rows(2).with_format("numpy")[i] for i in range(2)])
    states = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].copy()
    language_loss(model, [batch])
    assert model.training
    assert torch.equal(states[0], torch.get_rng_state())
    assert states[1] == random.getstate()
    assert (states[2] == np.random.get_state()[1]).all()


def test_chat_rows_can_be_watched(make_model: Models, chat_rows: Rows) -> None:
    callback = BumpCallback(chat_rows(4), steps=10)
    callback.on_train_begin(None, None, None, model=make_model())
    assert callback.last is not None and callback.last > 0.0


def test_a_phase_of_two_steps_has_one_series(make_model: Models, chat_rows: Rows) -> None:
    model, rows = make_model(), chat_rows(4)
    first = BumpCallback(rows, steps=10)
    first.on_train_begin(None, None, None, model=model)
    second = BumpCallback(rows, steps=10, offset=6, earlier=first.series)
    second.on_train_begin(None, None, None, model=model)
    assert second.series == first.series
