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
    builder = builder_of(options)
    assert builder.facts() == facts_of(builder.configuration(), 64)


@pytest.mark.parametrize(
    ("options", "mixer", "router"),
    [
        ({"window": 16}, "attention", "linear"),
        ({"window": 100}, "attention", "torus"),
        ({"num_hidden_layers": 5, "attention_every": 2, "window": 16}, "pdr", "linear"),
        ({"num_hidden_layers": 4, "dense_layers": [3]}, "pdr", "torus"),
        ({"start": "dense"}, "attention", "linear"),
        ({"start": "dense", "dense_layers": [1], "sharing": "modulo"}, "attention", "linear"),
        ({"start": "dense", "num_hidden_layers": 4, "dense_layers": [3], "window": 16}, "pdr", "torus"),
    ],
    ids=["window", "window wider than the row, torus", "mixer", "mixer, torus", "seed", "shared seed", "all of it"],
)
def test_arithmetic_counts_windows_mixers_routers_and_seeds(options: dict[str, Any], mixer: str, router: str) -> None:
    builder = builder_of(options, mixer=Ref(use=mixer), router=Ref(use=router))
    assert builder.facts() == facts_of(builder.configuration(), 64)


@pytest.mark.parametrize("experts", [None, 18])
def test_a_seed_knows_what_it_becomes_with_experts(experts: int | None) -> None:
    sizes = {"num_hidden_layers": 4, "dense_layers": [3], "window": 16}
    mixer, router = Ref(use="pdr"), Ref(use="torus")
    seed = builder_of({**sizes, "start": "dense"}, mixer=mixer, router=router)
    moe = builder_of({**sizes, "num_experts": experts or 9}, mixer=mixer, router=router)
    assert seed.upcycled(experts) == facts_of(moe.configuration(), 64)


def test_a_token_passes_a_shared_ffn_as_often_as_layers_use_it() -> None:
    builder = builder_of({"start": "dense", "dense_layers": [1]})
    facts, ffn = builder.facts(), 3 * 64 * 64
    assert facts.by_role["ffn"] == ffn
    assert facts.active - facts.total == 2 * ffn
    # three layers of attention and FFN, the head, and attention over rows of 64 tokens
    assert facts.flops_per_token == 6 * (3 * (4 * 64 * 64 + ffn) + 1536 * 64) + 12 * 3 * 64 * 64


def builder_of(options: dict[str, Any], **components: Ref) -> Any:
    known = {"router": Ref(use="linear"), **components}
    context = ModelContext(registry=current(), derived=DERIVED, vocab_size=1536, sequence_length=64, **known)
    return current().build("model", "moe", options, context=context)
