"""Following a step while it trains: what is told, when, and that training is not disturbed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from datasets import Dataset
from phasegate.core.training.bump import BumpCallback
from phasegate.core.training.following import FollowCallback, Logged
from phasegate.core.training.hooks import attach_all
from phasegate.core.training.job import StepJob, build_trainer
from phasegate.core.training.release import release
from transformers import PreTrainedModel

Models = Callable[..., PreTrainedModel]
Rows = Callable[..., Dataset]
Jobs = Callable[..., StepJob]


class Follower:
    def __init__(self) -> None:
        self.heard: list[Any] = []
        self.told: list[Logged] = []

    def began(self, done: int, steps: int) -> None:
        self.heard.append(("began", done, steps))

    def reached(self, step: int) -> None:
        self.heard.append(step)

    def logged(self, told: Logged) -> None:
        self.heard.append("logged")
        self.told.append(told)


def followed(job: StepJob) -> Follower:
    follower = Follower()
    callbacks = [FollowCallback(follower), *job.callbacks]
    trainer = build_trainer(replace(job, callbacks=callbacks))
    attach_all(callbacks, trainer)
    trainer.train()
    release(trainer)
    return follower


def test_every_step_is_counted_and_told_of_at_logging_steps_only(
    make_model: Models, causal_rows: Rows, make_job: Jobs
) -> None:
    follower = followed(make_job(make_model(), causal_rows(8), {"steps": 4, "rows": 2}, logging_steps=2))
    assert follower.heard == [("began", 0, 4), 1, 2, "logged", 3, 4, "logged"]
    assert [told.step for told in follower.told] == [2, 4]
    assert "loss/task" in follower.told[0].values and "learning_rate" in follower.told[0].values


def test_the_load_of_every_expert_is_that_whose_extremes_are_logged(
    make_model: Models, causal_rows: Rows, make_job: Jobs
) -> None:
    follower = followed(make_job(make_model(), causal_rows(8), {"steps": 4, "rows": 2}, logging_steps=2))
    for told in follower.told:
        assert told.load is not None
        assert told.load.sum(-1) == pytest.approx(1.0)
        assert told.load.min() == told.values["router/load_min"]
        assert told.load.max() == told.values["router/load_max"]


def test_the_old_loss_is_told_once_where_it_was_measured(make_model: Models, causal_rows: Rows, make_job: Jobs) -> None:
    bump = BumpCallback(causal_rows(4, seed=5), steps=4, every=0.5)
    section = {"steps": 4, "rows": 2}
    follower = followed(make_job(make_model(), causal_rows(8), section, logging_steps=1, callbacks=[bump]))
    assert [[step for step, _ in told.old] for told in follower.told] == [[0], [2], [], [4]]
    assert [point for told in follower.told for point in told.old] == bump.series


def test_what_was_measured_before_a_resume_is_not_told_again(
    make_model: Models, causal_rows: Rows, make_job: Jobs
) -> None:
    bump = BumpCallback(causal_rows(4, seed=5), steps=4, every=0.5, earlier=[(-2, 3.0), (0, 3.0)])
    follower = followed(make_job(make_model(), causal_rows(8), {"steps": 4, "rows": 2}, callbacks=[bump]))
    assert [step for told in follower.told for step, _ in told.old] == [2, 4]


def test_following_changes_no_bit(make_model: Models, causal_rows: Rows, make_job: Jobs) -> None:
    plain, watched = make_model(), make_model()
    trainer = build_trainer(make_job(plain, causal_rows(8), {"steps": 4, "rows": 2}))
    trainer.train()
    release(trainer)
    followed(make_job(watched, causal_rows(8), {"steps": 4, "rows": 2}))
    assert all(torch.equal(one, other) for one, other in zip(plain.parameters(), watched.parameters(), strict=True))
