"""The progressive quantizer."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from datasets import Dataset
from phasegate.core.model.quantization import Quantization, quantize_experts
from phasegate.core.training.bump import batches_of, language_loss
from phasegate.core.training.checkpoint import Resumable
from phasegate.core.training.job import StepJob, build_trainer
from phasegate.core.training.quantizing import QuantizerCallback, QuantizerSchedule
from phasegate.core.training.release import release
from phasegate.plugins.quantizers.options import TernaryConfig
from phasegate.plugins.quantizers.ternary import Ternary
from phasegate.registry.errors import ConfigError, StoreError
from transformers import PreTrainedModel

Models = Callable[..., PreTrainedModel]
Rows = Callable[..., Dataset]
Weights = dict[str, torch.Tensor]

STEPS = 8
ORDERS = ("largest", "smallest", "soft")


def put_on(model: PreTrainedModel, scale: str = "row") -> Quantization:
    return quantize_experts(model, "ternary", {"scale": scale}, Ternary(TernaryConfig(scale=scale)))


def at(step: int, steps: int = STEPS) -> SimpleNamespace:
    return SimpleNamespace(global_step=step, max_steps=steps)


def effective(quantization: Quantization) -> Weights:
    return {name: quantization.effective(name, weight).detach().clone() for name, weight in quantization.weights()}


def same(one: Mapping[str, torch.Tensor], other: Mapping[str, torch.Tensor]) -> bool:
    return set(one) == set(other) and all(torch.equal(one[name], other[name]) for name in one)


class Loop:
    """A training loop by hand: events, then one AdamW step on a batch that depends on the step alone."""

    def __init__(self, model: PreTrainedModel, schedule: QuantizerSchedule, batches: Any = ()) -> None:
        self.model = model
        self.quantization = put_on(model)
        self.callback = QuantizerCallback(self.quantization, schedule, batches)
        self.optimizer = torch.optim.AdamW(model.parameters(), lr=0.02)

    def run(self, first: int, last: int) -> list[Weights]:
        """The effective weights of every step."""
        seen = []
        self.callback.on_train_begin(None, at(first), None, model=self.model)
        for step in range(first, last):
            self.callback.on_step_begin(None, at(step), None, model=self.model)
            seen.append(effective(self.quantization))
            ids = torch.randint(6, 48, (2, 12), generator=torch.Generator().manual_seed(step))
            self.optimizer.zero_grad()
            self.model.train()(input_ids=ids, labels=ids, use_cache=False)["loss"].backward()
            self.optimizer.step()
        return seen


def gaussian(make_model: Models) -> PreTrainedModel:
    """Matrices of 2^14 and 2^13 Gaussian weights."""
    return make_model(hidden_size=128, moe_intermediate_size=64)


def reports(model: PreTrainedModel, schedule: QuantizerSchedule, batches: Any = ()) -> list[dict[str, Any]]:
    """Of all events on weights that do not change."""
    callback = QuantizerCallback(put_on(model, "tensor"), schedule, batches)
    callback.on_train_begin(None, at(0), None, model=model)
    for step in range(STEPS):
        callback.on_step_begin(None, at(step), None, model=model)
    return callback.reports


def test_the_events_of_a_step_come_at_their_shares_of_it(make_model: Models) -> None:
    loop = Loop(make_model(), QuantizerSchedule())
    assert loop.quantization.share == 0.0  # what others measure before the first step is the model as it came
    loop.run(0, STEPS)
    assert [(report["step"], report["share"]) for report in loop.callback.reports] == [
        (0, 0.25),
        (2, 0.5),
        (4, 0.75),
        (6, 1.0),
    ]


def test_nothing_is_quantized_before_the_first_event(make_model: Models) -> None:
    loop = Loop(make_model(), QuantizerSchedule(events=(0.5,), shares=(1.0,)))
    seen = loop.run(0, 4)
    assert loop.callback.reports == []
    assert all((weight != 0).all() for weights in seen for weight in weights.values())
    loop.run(4, 5)
    assert [report["step"] for report in loop.callback.reports] == [4]


@pytest.mark.parametrize("steps", [1, 3, 7, 100])
def test_every_step_has_a_part_that_trains_fully_quantized(steps: int) -> None:
    schedule = QuantizerSchedule(events=(0.07, 0.999), shares=(0.5, 1.0))
    assert schedule.share_at(steps - 1, steps) == 1.0


def test_an_event_at_7_of_100_comes_after_7_steps() -> None:
    schedule = QuantizerSchedule(events=(0.07,), shares=(1.0,))
    assert [schedule.due(step, 100) for step in (6, 7)] == [0, 1]


def test_events_of_one_step_are_one(make_model: Models) -> None:
    model = make_model()
    callback = QuantizerCallback(put_on(model), QuantizerSchedule())
    callback.on_train_begin(None, at(0, 2), None, model=model)
    callback.on_step_begin(None, at(1, 2), None, model=model)
    assert [(report["step"], report["share"]) for report in callback.reports] == [(0, 0.5), (1, 1.0)]


def test_the_largest_first_have_no_zeros_until_the_last_events(make_model: Models) -> None:
    found = [report["zeros"] for report in reports(gaussian(make_model), QuantizerSchedule())]
    assert found[:2] == [0.0, 0.0]
    assert found[2:] == pytest.approx([0.23, 0.423], abs=0.01)


def test_the_smallest_first_are_zeros_at_once(make_model: Models) -> None:
    found = [report["zeros"] for report in reports(gaussian(make_model), QuantizerSchedule(order="smallest"))]
    assert found == pytest.approx([1.0, 0.423 / 0.5, 0.423 / 0.75, 0.423], abs=0.01)


def test_the_error_ends_at_that_of_the_quantizer(make_model: Models) -> None:
    for order in ORDERS:
        found = [report["error"] for report in reports(gaussian(make_model), QuantizerSchedule(order=order))]
        assert found == sorted(found)
        assert found[-1] == pytest.approx(0.19, abs=0.01)


def test_a_soft_blend_rises_from_the_first_event_to_the_last(make_model: Models) -> None:
    schedule = QuantizerSchedule(events=(0.25, 0.75), shares=(0.5, 1.0), order="soft")
    loop = Loop(make_model(), schedule)
    shares = []
    for step in range(STEPS):
        loop.callback.on_step_begin(None, at(step), None, model=loop.model)
        shares.append(loop.quantization.share)
    assert shares == [0.0, 0.0, 0.0, 0.25, 0.5, 0.75, 1.0, 1.0]


def test_a_soft_blend_has_an_error_of_its_square(make_model: Models) -> None:
    # W - W_eff = blend (W - W_q)
    found = [report["error"] for report in reports(gaussian(make_model), QuantizerSchedule(order="soft"))]
    assert found[:-1] == pytest.approx([found[-1] * blend**2 for blend in (0.0, 1 / 3, 2 / 3)], abs=1e-6)


def test_perplexity_is_measured_before_and_after_every_event(make_model: Models, causal_rows: Rows) -> None:
    model, batches = make_model().train(), batches_of(causal_rows(4))
    latent = math.exp(language_loss(model, batches))
    found = reports(model, QuantizerSchedule(), batches)
    assert found[0]["perplexity_before"] == latent
    for one, following in pairwise(found):
        assert one["perplexity_after"] == following["perplexity_before"]
    assert found[-1]["perplexity_after"] == math.exp(language_loss(model, batches))
    assert found[-1]["perplexity_after"] != latent
    assert model.training


def test_without_held_out_rows_there_is_no_perplexity(make_model: Models) -> None:
    assert reports(make_model(), QuantizerSchedule())[0]["perplexity_after"] is None


@pytest.mark.parametrize("freeze", [False, True])
@pytest.mark.parametrize("order", ORDERS)
def test_training_goes_on_from_any_step_with_the_same_bits(
    order: Any, freeze: bool, make_model: Models, causal_rows: Rows
) -> None:
    schedule, batches = QuantizerSchedule(order=order, freeze=freeze), batches_of(causal_rows(2))
    straight = Loop(make_model(), schedule, batches)
    wanted = straight.run(0, STEPS)
    for stop in range(STEPS):
        first = Loop(make_model(), schedule, batches)
        first.run(0, stop)
        state, tensors = json.loads(json.dumps(first.callback.state_dict())), first.callback.tensors()
        again = Loop(make_model(seed=7), schedule, batches)
        again.model.load_state_dict(first.model.state_dict())
        again.optimizer.load_state_dict(first.optimizer.state_dict())
        again.callback.load_state_dict(state)
        again.callback.load_tensors(tensors)
        found = again.run(stop, STEPS)
        assert all(same(one, other) for one, other in zip(found, wanted[stop:], strict=True))
        assert again.callback.reports == straight.callback.reports
        assert same(again.model.state_dict(), straight.model.state_dict())


def test_what_was_restored_can_be_saved_again_before_it_is_used(make_model: Models) -> None:
    loop = Loop(make_model(), QuantizerSchedule())
    loop.run(0, 3)
    again = QuantizerCallback(put_on(make_model()), QuantizerSchedule())
    again.load_tensors(loop.callback.tensors())
    again.load_state_dict(loop.callback.state_dict())
    assert same(again.tensors(), loop.callback.tensors())
    assert again.state_dict() == loop.callback.state_dict()
    assert isinstance(again, Resumable)


def test_lost_masks_are_missed(make_model: Models) -> None:
    loop = Loop(make_model(), QuantizerSchedule())
    loop.run(0, 3)
    again = QuantizerCallback(put_on(make_model()), QuantizerSchedule())
    again.load_state_dict(loop.callback.state_dict())
    with pytest.raises(StoreError, match="masks"):
        again.on_train_begin(None, at(3), None, model=None)


def test_a_trainer_goes_on_from_a_checkpoint_with_the_same_bits(
    make_model: Models, causal_rows: Rows, make_job: Callable[..., StepJob], tmp_path: Path
) -> None:
    section = {"steps": STEPS, "rows": 2, "learning_rate": 0.02, "activation_checkpointing": True}

    def train(folder: str, seed: int = 0, resume: str | None = None) -> tuple[StepJob, list[dict[str, Any]]]:
        model = make_model(seed)
        callback = QuantizerCallback(put_on(model), QuantizerSchedule(), batches_of(causal_rows(2, seed=3)))
        changes = {"callbacks": [callback], "folder": tmp_path / folder, "save_steps": 5}
        job = make_job(model, causal_rows(16), section, **changes)
        trainer = build_trainer(job)
        trainer.train(resume_from_checkpoint=resume)
        release(trainer)
        return job, callback.reports

    straight, wanted = train("straight")
    resumed, found = train("resumed", 7, str(tmp_path / "straight" / "checkpoint-5"))
    assert [(report["step"], report["share"]) for report in wanted] == [(0, 0.25), (2, 0.5), (4, 0.75), (6, 1.0)]
    assert found == wanted
    assert same(straight.model.state_dict(), resumed.model.state_dict())


@pytest.mark.parametrize(
    ("events", "shares", "said"),
    [
        ((0.0, 0.5), (1.0,), "events"),
        ((), (), "events"),
        ((0.5, 0.25), (0.5, 1.0), "events"),
        ((0.5, 0.5), (0.5, 1.0), "events"),
        ((-0.1, 0.5), (0.5, 1.0), "events"),
        ((0.5, 1.0), (0.5, 1.0), "events"),
        ((0.5, float("nan")), (0.5, 1.0), "events"),
        ((0.0, 0.5), (0.75, 0.5), "shares"),
        ((0.0, 0.5), (0.0, 1.0), "shares"),
        ((0.0, 0.5), (0.5, 1.5), "shares"),
        ((0.0, 0.5), (0.25, 0.75), "never all quantized"),
    ],
)
def test_a_schedule_that_cannot_be_is_refused_in_one_sentence(
    events: tuple[float, ...], shares: tuple[float, ...], said: str
) -> None:
    with pytest.raises(ConfigError, match=said) as error:
        QuantizerSchedule(events=events, shares=shares)
    assert str(error.value).count(". ") == 0
