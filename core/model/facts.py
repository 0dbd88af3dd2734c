"""Parameters and FLOPs of a model, counted on the meta device: no memory is allocated."""

from __future__ import annotations

from collections import Counter
from typing import Any

import torch
from transformers import AutoModelForCausalLM

from .builder import ModelFacts
from .parameters import expert_parameters, roles_of

_MATMUL_ROLES = ("attention", "experts", "ffn", "other", "router")


def facts_of(config: Any, sequence_length: int) -> ModelFacts:
    """Count the model of a configuration.

    *active* weighs the experts by k/E and counts an FFN that several layers share once for each. Training FLOPs per
    token are ``6 M + 12 L h q T`` with M the active matmul parameters (norms and the embedding lookup excluded; the
    head included, tied or not), L layers, h heads of size q and T tokens of context: forward 2 per multiply-add,
    backward twice that (Kaplan 2020, 2001.08361), and attention over the full square, as counted by PaLM (Chowdhery
    2022, 2204.02311, app. B), or over the window where a layer has one. What another mixer computes beyond its matrix
    products is left out.
    """
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    roles, stacked = roles_of(model), set(expert_parameters(model))
    total: Counter[str] = Counter()
    active: Counter[str] = Counter()
    for name, parameter in model.named_parameters():
        total[roles[name]] += parameter.numel()
        share = config.num_experts_per_tok / parameter.shape[0] if name in stacked else 1.0
        active[roles[name]] += round(parameter.numel() * share)
    for source in getattr(config, "shared_ffn", None) or ():
        if source is not None:
            active["ffn"] += sum(parameter.numel() for parameter in model.get_decoder().layers[source].mlp.parameters())
    matmul = sum(active[role] for role in _MATMUL_ROLES) + config.vocab_size * config.hidden_size
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    types = Counter(getattr(config, "layer_types", None) or ["full_attention"] * config.num_hidden_layers)
    windowed = types["sliding_attention"] * min(getattr(config, "sliding_window", None) or 0, sequence_length)
    attention = config.num_attention_heads * head_dim * (types["full_attention"] * sequence_length + windowed)
    return ModelFacts(
        total=sum(total.values()),
        active=sum(active.values()),
        by_role=dict(sorted(total.items())),
        flops_per_token=6.0 * matmul + 12.0 * attention,
    )
