"""The gate over the two ways to read a text."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from phasegate.plugins.gates.recurrence import RecurrenceConfig, RecurrenceGate

TEXTS = [
    {"text": f"the cat sat on a red mat and ate {'one small fish while it rained ' * (i % 3)} {i}", "domain": domain}
    for i in range(6)
    for domain in ("general", "code")
]


def measure(context: Any, **changes: Any) -> Any:
    gate = RecurrenceGate(RecurrenceConfig(rows=4, tokens=16))
    return gate.measure(context({"text": TEXTS}, **changes))["max_difference"]


def test_attention_reads_the_same_at_once_and_token_by_token(context: Any) -> None:
    found = measure(context)
    assert found.value < 1e-4
    assert (found.n, found.kind) == (4, "exact")


def test_a_layer_that_forgets_is_found_out(context: Any, model: Any) -> None:
    """Attention that sees no earlier token once there is a cache."""

    def forget(_module: Any, _args: Any, kwargs: dict[str, Any]) -> tuple[tuple[()], dict[str, Any]]:
        return (), kwargs | {"past_key_values": None}

    for layer in model.model.layers:
        layer.self_attn.register_forward_pre_hook(forget, with_kwargs=True)
    assert measure(context).value > 1e-2


def test_the_largest_difference_of_any_logit_counts(context: Any, model: Any) -> None:
    calls = []

    def shift(_module: Any, _args: Any, output: torch.Tensor) -> torch.Tensor:
        calls.append(output.shape)
        if output.shape[1] == 1 and sum(shape[1] == 1 for shape in calls) == 3:
            output = output.clone()
            output[0, 0, 7] += 2.5
        return output

    model.lm_head.register_forward_hook(shift)
    assert measure(context).value == pytest.approx(2.5, abs=1e-3)


def test_nothing_is_left_on_the_model(context: Any, model: Any) -> None:
    model.train()
    measure(context)
    assert model.training


def test_a_model_of_no_numbers_is_missing(context: Any, model: Any) -> None:
    model.lm_head.register_forward_hook(lambda module, args, output: output * float("nan"))
    assert measure(context).missing == "the model's logits are not finite numbers"


def test_without_text_it_is_missing(context: Callable[..., Any]) -> None:
    assert RecurrenceGate().measure(context({}))["max_difference"].missing is not None
