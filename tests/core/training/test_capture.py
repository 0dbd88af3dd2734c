"""What router hooks record, and when they do not."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from phasegate.core.training.capture import RouterCapture
from transformers import PreTrainedModel

IDS = torch.arange(6, 16)[None]
Models = Callable[..., PreTrainedModel]


def test_every_router_is_recorded_once_with_gradient(make_model: Models) -> None:
    model = make_model()
    capture = RouterCapture(model)
    with capture.recording() as recording:
        model(IDS)
    records = capture.records(recording)
    assert [record.layer for record in records] == [0, 1]
    assert all(record.logits.requires_grad and record.logits.shape == (10, 4) for record in records)
    assert all(record.index.shape == (10, 2) for record in records)


def test_nothing_is_recorded_outside_of_a_recording(make_model: Models) -> None:
    model = make_model()
    capture = RouterCapture(model)
    with capture.recording() as recording:
        pass
    model(IDS)
    assert capture.records(recording) == []


def test_a_forward_without_gradient_leaves_no_trace(make_model: Models) -> None:
    model = make_model()
    capture = RouterCapture(model)
    with capture.recording() as recording, torch.no_grad():
        model(IDS)
    assert capture.records(recording) == []


def test_another_model_leaves_no_trace(make_model: Models) -> None:
    model, reference = make_model(), make_model(seed=1)
    capture = RouterCapture(model)
    with capture.recording() as recording:
        reference(IDS)
    assert capture.records(recording) == []


def test_activation_checkpointing_counts_once(make_model: Models) -> None:
    model = make_model().train()
    model.activation_checkpointing_enable(activation_checkpointing_kwargs={"use_reentrant": False})
    capture = RouterCapture(model)
    with capture.recording() as recording:
        loss = model(IDS, labels=IDS)["loss"]
    count = len(capture.records(recording))
    loss.backward()
    assert count == len(capture.records(recording)) == 2
    assert all(record.logits.requires_grad for record in capture.records(recording))


def test_two_forwards_are_concatenated_token_by_token(make_model: Models) -> None:
    model = make_model()
    capture = RouterCapture(model)
    with capture.recording() as first:
        model(IDS)
    with capture.recording() as second:
        model(IDS[:, :4])
    records = capture.records(first, second)
    assert [tuple(record.logits.shape) for record in records] == [(14, 4), (14, 4)]
    torch.testing.assert_close(records[0].logits[10:], records[0].logits[:4])


def test_removed_hooks_are_gone(make_model: Models) -> None:
    model = make_model()
    capture = RouterCapture(model)
    capture.remove()
    with capture.recording() as recording:
        model(IDS)
    assert capture.records(recording) == []
    assert all(not module._forward_hooks for _, _, module in capture.routers)


def test_gradients_flow_from_a_record_to_the_router(make_model: Models) -> None:
    model = make_model()
    capture = RouterCapture(model)
    with capture.recording() as recording:
        model(IDS)
    capture.records(recording)[1].logits.sum().backward()
    assert capture.routers[1][2].weight.grad is not None


def test_a_dense_model_has_no_routers(make_model: Models) -> None:
    model = make_model(mlp_only_layers=[0, 1])
    assert RouterCapture(model).routers == []


def test_hooks_do_not_ride_along_on_a_copy_made_before(make_model: Models) -> None:
    model = make_model()
    twin = copy.deepcopy(model)
    capture = RouterCapture(model)
    with capture.recording() as recording:
        twin(IDS)
    assert capture.records(recording) == []


@pytest.mark.parametrize("implementation", ["eager", "grouped_mm"])
def test_all_experts_implementations_are_recorded_alike(make_model: Models, implementation: str) -> None:
    model = make_model()
    model.set_experts_implementation(implementation)
    capture = RouterCapture(model)
    with capture.recording() as recording:
        model(IDS)
    assert len(capture.records(recording)) == 2
