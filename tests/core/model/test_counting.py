"""The plan's arithmetic against a model counted on the meta device."""

from __future__ import annotations

from typing import Any

import pytest
from phasegate.core.config.schema import Ref
from phasegate.core.model import modeling  # noqa: F401
from phasegate.core.model.builder import ModelContext
from phasegate.core.model.facts import facts_of
from phasegate.registry.current import current

DERIVED = {
    "hidden_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "head_dim": 16,
    "moe_intermediate_size": 64,
    "num_experts": 9,
    "num_experts_per_tok": 1,
    "initializer_range": 0.06,
}


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"num_experts_per_tok": 2, "num_key_value_heads": 2},
        {"tie_word_embeddings": False, "head_dim": 32},
        {"dense_layers": [0, 2], "intermediate_size": 96},
    ],
    ids=["nano", "grouped", "untied", "partly dense"],
)
def test_arithmetic_counts_what_the_model_has(options: dict[str, Any]) -> None:
    context = ModelContext(
        registry=current(), router=Ref(use="linear"), derived=DERIVED, vocab_size=1536, sequence_length=64
    )
    builder = current().build("model", "moe", options, context=context)
    assert builder.facts() == facts_of(builder.configuration(), 64)
