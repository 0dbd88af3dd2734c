"""What terms and routers are told in training: order of tokens, hidden states, further numbers, the end of a step."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import pytest
import torch
from datasets import Dataset
from phasegate.core.model.router import RouterBase
from phasegate.core.training.accounting import following
from phasegate.core.training.job import build_trainer
from phasegate.core.training.release import release
from phasegate.core.training.terms import LossContext, WeightedLoss


def test_a_token_follows_within_its_document_and_not_behind_padding() -> None:
    batch = {
        "input_ids": torch.zeros(2, 6, dtype=torch.int64),
        "position_ids": torch.tensor([[0, 1, 2, 0, 1, 2], [0, 1, 2, 3, 4, 5]]),
        "attention_mask": torch.tensor([[1, 1, 1, 1, 1, 1], [1, 1, 1, 1, 0, 0]]),
    }
    assert following(batch).view(2, 6).tolist() == [
        [False, True, True, False, True, True],
        [False, True, True, True, False, False],
    ]


def test_without_positions_every_row_is_one_text() -> None:
    assert following({"input_ids": torch.zeros(1, 3, dtype=torch.int64)}).tolist() == [False, True, True]


class Listening:
    """A loss term of value 0 that keeps what it was shown."""

    facts: ClassVar[tuple[str, ...]] = ("followers", "one")

    def __init__(self) -> None:
        self.contexts: list[LossContext] = []
        self.told: list[torch.Tensor] = []

    def __call__(self, ctx: LossContext) -> torch.Tensor:
        assert ctx.follows is not None
        self.contexts.append(ctx)
        self.told = [ctx.follows.float().mean(), torch.ones(())]
        return torch.zeros(())

    def after_step(self) -> None:
        """Nothing is kept."""

    def state_dict(self) -> Mapping[str, torch.Tensor]:
        return {}

    def load_state_dict(self, state: Mapping[str, torch.Tensor]) -> None:
        """Nothing is kept."""


@pytest.mark.parametrize("accumulate", [1, 2])
def test_terms_see_hidden_states_and_order_and_log_further_numbers(
    accumulate: int, platform_model: Any, causal_rows: Callable[..., Dataset], make_job: Callable[..., Any]
) -> None:
    listening = Listening()
    term = WeightedLoss(name="listening", loss=listening, weight=1.0, options={})
    section = {"steps": 2, "rows": 4, "accumulate": accumulate}
    trainer = build_trainer(make_job(platform_model, causal_rows(8), section, losses=(term,)))
    trainer.train()
    release(trainer)
    context = listening.contexts[0]
    tokens = 4 // accumulate * 12
    assert [record.hidden.shape for record in context.records if record.hidden is not None] == [(tokens, 16)] * 2
    assert context.follows is not None and context.follows.shape == (tokens,)
    logged = [row for row in trainer.state.log_history if "loss/listening/one" in row]
    # Two documents of six tokens in every row: ten of twelve tokens follow another one.
    assert [row["loss/listening/followers"] for row in logged] == pytest.approx([10 / 12] * 2)
    assert [row["loss/listening/one"] for row in logged] == pytest.approx([1.0] * 2)
    assert all(0.0 <= row["router/gini"] <= 1.0 for row in logged)


def test_routers_that_train_are_told_how_far_the_step_is_and_frozen_ones_are_not(
    platform_model: Any,
    causal_rows: Callable[..., Dataset],
    make_job: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    told: list[float] = []
    monkeypatch.setattr(RouterBase, "after_step", lambda self, progress: told.append(progress))
    for freeze, expected in (((), [0.25, 0.25, 0.5, 0.5, 0.75, 0.75, 1.0, 1.0]), (("router",), [])):
        told.clear()
        job = make_job(platform_model, causal_rows(8), {"steps": 4, "rows": 2, "freeze": freeze})
        trainer = build_trainer(job)
        trainer.train()
        release(trainer)
        assert told == expected
