"""Parameters and FLOPs of ``phasegate_moe`` by arithmetic: a plan needs them in milliseconds, without torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .builder import ModelFacts


def count_moe(options: Mapping[str, Any], vocab_size: int, sequence_length: int, router: int) -> ModelFacts:
    """Count a model of these options; ``router`` is the number of parameters of one layer's router.

    The counts and the formula for FLOPs are those of ``facts_of``, which counts any model on the meta device.
    """
    hidden, layers, head = options["hidden_size"], options["num_hidden_layers"], options["head_dim"]
    queries, keys = options["num_attention_heads"] * head, options["num_key_value_heads"] * head
    experts, chosen = options["num_experts"], options["num_experts_per_tok"]
    dense = len(set(options["dense_layers"]))
    sparse = layers - dense
    roles = {
        "attention": layers * (2 * hidden * queries + 2 * hidden * keys),
        "embedding": vocab_size * hidden,
        "experts": sparse * 3 * experts * hidden * options["moe_intermediate_size"],
        "ffn": dense * 3 * hidden * options["intermediate_size"],
        "head": 0 if options["tie_word_embeddings"] else vocab_size * hidden,
        "norm": layers * (2 * hidden + 2 * head) + hidden,
        "router": sparse * router,
    }
    active = {**roles, "experts": roles["experts"] * chosen // experts}
    matmul = active["attention"] + active["experts"] + active["ffn"] + active["router"] + vocab_size * hidden
    return ModelFacts(
        total=sum(roles.values()),
        active=sum(active.values()),
        by_role={role: count for role, count in sorted(roles.items()) if count},
        flops_per_token=6.0 * matmul + 12.0 * layers * queries * sequence_length,
    )
