"""The gate: formulas by hand, and a model whose routing is known."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from phasegate.evals.context import MeasureContext
from torch import nn

from phasegate_hash_router.agreement import agreements, evenness
from phasegate_hash_router.gate import StabilityGate
from phasegate_hash_router.options import StabilityConfig


def test_evenness_is_the_share_of_experts_that_an_even_load_would_need() -> None:
    # H(3/4, 1/4) = 0.56234 nats, exp = 1.75477 of 2 experts; the second layer is even.
    assert evenness(np.array([[3, 1], [2, 2]])) == pytest.approx((1.754765 / 2 + 1.0) / 2, abs=1e-6)
    assert evenness(np.array([[8, 0, 0, 0]])) == pytest.approx(0.25)


def test_a_token_agrees_where_other_documents_send_it_most_often() -> None:
    documents = [[7, 7, 9], [7, 9], [7]]
    # Layer 1: 7 goes to 0, 0 | 1 | 0 and 9 to 1 | 1. Layer 2: everything goes to 2.
    choices = [np.array([[0, 0, 1], [2, 2, 2]]), np.array([[1, 1], [2, 2]]), np.array([[0], [2]])]
    # Document 1, layer 1: elsewhere 7 goes once to 1 and once to 0, so each 7 shares the point (1/2); 9 goes to 1.
    # Document 2: elsewhere 7 goes to 0 three times, here to 1; 9 goes to 1. Document 3: 7 goes to 0 twice of three.
    layer = np.array([(0.5 + 0.5 + 1.0) / 3, (0.0 + 1.0) / 2, 1.0])
    assert agreements(documents, choices, 3, 1) == pytest.approx((layer + 1.0) / 2)


def test_tokens_that_are_rare_elsewhere_do_not_count() -> None:
    documents = [[7, 7, 9], [7, 9], [7]]
    choices = [np.zeros((1, len(ids)), dtype=np.int64) for ids in documents]
    assert agreements(documents, choices, 2, 3).tolist() == pytest.approx([math.nan, 1.0, 1.0], nan_ok=True)


class Router(nn.Module):
    """Sends a token to its id, or to its position, modulo three."""

    num_experts = 3

    def __init__(self, by: str) -> None:
        super().__init__()
        self.by = by

    def forward(self, ids: torch.Tensor) -> tuple[None, None, torch.Tensor]:
        place = torch.arange(ids.shape[1]).expand_as(ids)
        return None, None, ((ids if self.by == "token" else place) % 3).reshape(-1, 1)


class Model(nn.Module):
    device = torch.device("cpu")

    def __init__(self, by: str) -> None:
        super().__init__()
        self.router = Router(by)
        self.weight = nn.Parameter(torch.ones(1))

    @property
    def base_model(self) -> Model:
        return self

    def forward(self, input_ids: torch.Tensor, use_cache: bool) -> None:
        self.router(input_ids)


class Tokenizer:
    """A token for each letter."""

    eos_token_id = 0

    def __call__(self, text: str, add_special_tokens: bool) -> dict[str, list[int]]:
        return {"input_ids": [ord(letter) for letter in text]}


def context(by: str, texts: dict[str, str], **changes: Any) -> MeasureContext:
    model = Model(by)
    rows = [{"text": text, "domain": domain} for text, domain in texts.items()]
    facts: dict[str, Any] = {
        "model": model,
        "tokenizer": Tokenizer(),
        "view": lambda name, split: rows if (name, split) == ("text", "heldout") else [],
        "domains": ("general", "code"),
        "folder": Path(),
        "root": Path(),
        "routers": lambda model: [("router", 0, model.router)],
        "length": 32,
        "batch_size": 2,
    }
    return MeasureContext(**{**facts, **changes})


# Letters a, b, c are 97, 98, 99: experts 1, 2, 0.
TEXTS = {"abc": "general", "cab": "general", "bca": "code", "aab": "code", "cc": "code"}


def test_a_router_that_looks_at_tokens_sends_each_to_one_place() -> None:
    found = StabilityGate().measure(context("token", TEXTS))
    assert found["same_token"].value == 1.0
    # a 5 times, b 4 times and c 5 times among 14 tokens.
    assert found["same_token"].chance == pytest.approx(5 / 14)
    assert (found["same_token"].n, found["same_token/general"].n, found["same_token/code"].n) == (5, 2, 3)
    entropy = -(2 * 5 / 14 * math.log(5 / 14) + 4 / 14 * math.log(4 / 14))
    assert found["evenness"].value == pytest.approx(math.exp(entropy) / 3)
    low, high = found["evenness"].interval or (0.0, 0.0)
    assert low < found["evenness"].value < high


def test_a_router_that_looks_at_positions_does_not() -> None:
    found = StabilityGate(StabilityConfig(least=1)).measure(context("place", TEXTS))
    assert found["same_token"].value < 0.75
    assert len(found["same_token"].per_document) == 5


def test_one_model_measured_twice_has_equal_values_for_equal_documents_however_they_are_batched() -> None:
    one, other = (StabilityGate().measure(context("place", TEXTS, batch_size=size)) for size in (1, 5))
    assert one == other


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"view": lambda name, split: []}, "no heldout text in the view 'text'"),
        ({"routers": lambda model: []}, "one number of experts"),
    ],
)
def test_what_cannot_be_measured_says_why_and_passes_nothing(changes: dict[str, Any], reason: str) -> None:
    found = StabilityGate().measure(context("token", TEXTS, **changes))
    assert set(found) == {"evenness", "same_token"}
    assert all(math.isnan(one.value) and reason in (one.missing or "") for one in found.values())


def test_weights_that_are_no_numbers_are_not_measured() -> None:
    broken = context("token", TEXTS)
    broken.model.weight.data.fill_(math.nan)
    assert "not finite" in (StabilityGate().measure(broken)["same_token"].missing or "")
