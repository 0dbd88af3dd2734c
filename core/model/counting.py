"""Parameters and FLOPs of ``phasegate_moe`` by arithmetic: a plan needs them in milliseconds, without torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .builder import ModelFacts

Roles = Mapping[str, int]


def count_moe(
    options: Mapping[str, Any], vocab_size: int, sequence_length: int, router: int, mixer: Roles | None = None
) -> ModelFacts:
    """Count a model of these options; ``router`` is the number of parameters of all its routers together, ``mixer``
    those of one mixer by role, in the layers ``mixer_layers`` (None: attention like all others).

    ``dense_layers`` have an FFN of their own; with ``start: dense`` all others use one of those again, or have one of
    their own where there is none to share. The counts and the formula for FLOPs are those of ``facts_of``, which counts
    any model on the meta device.
    """
    hidden, layers, head = options["hidden_size"], options["num_hidden_layers"], options["head_dim"]
    queries, keys = options["num_attention_heads"] * head, options["num_key_value_heads"] * head
    experts, chosen = options["num_experts"], options["num_experts_per_tok"]
    dense = len(set(options["dense_layers"]))
    seed = options.get("start") == "dense"
    sparse = 0 if seed else layers - dense
    mixed = layers if mixer is None else layers - len(options["mixer_layers"])  # layers with attention
    mixers: Roles = {} if mixer is None else {role: count * (layers - mixed) for role, count in mixer.items()}
    ffn = 3 * hidden * options["intermediate_size"]
    roles = {
        "attention": mixed * (2 * hidden * queries + 2 * hidden * keys) + mixers.get("attention", 0),
        "embedding": vocab_size * hidden,
        "experts": sparse * 3 * experts * hidden * options["moe_intermediate_size"],
        "ffn": (dense or layers if seed else dense) * ffn,
        "head": 0 if options["tie_word_embeddings"] else vocab_size * hidden,
        "norm": layers * 2 * hidden + mixed * 2 * head + mixers.get("norm", 0) + hidden,
        "router": 0 if seed else router,
    }
    # A shared FFN is stored once, and a token passes it in every layer that uses it.
    again = (layers - dense) * ffn if seed and dense else 0
    active = {**roles, "experts": roles["experts"] * chosen // experts}
    matmul = active["attention"] + active["experts"] + active["ffn"] + active["router"] + vocab_size * hidden + again
    window, windowed = options.get("window"), set(options.get("windowed", ()))
    looked = (mixed - len(windowed)) * sequence_length + len(windowed) * min(window or 0, sequence_length)
    return ModelFacts(
        total=sum(roles.values()),
        active=sum(active.values()) + again,
        by_role={role: count for role, count in sorted(roles.items()) if count},
        flops_per_token=6.0 * matmul + 12.0 * queries * looked,
    )
