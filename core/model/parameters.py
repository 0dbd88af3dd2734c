"""Which parameter belongs to what: roles, stacked experts, routers."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from torch import nn
from transformers.models.flex_olmo.modeling_flex_olmo import FlexOlmoTopKRouter
from transformers.models.mixtral.modeling_mixtral import MixtralTopKRouter
from transformers.models.olmoe.modeling_olmoe import OlmoeTopKRouter
from transformers.models.qwen2_moe.modeling_qwen2_moe import Qwen2MoeTopKRouter
from transformers.models.qwen3_moe.modeling_qwen3_moe import Qwen3MoeTopKRouter

from ...registry.errors import ConfigError
from .router import RouterBase

_ROUTERS = (
    FlexOlmoTopKRouter,
    MixtralTopKRouter,
    OlmoeTopKRouter,
    Qwen2MoeTopKRouter,
    Qwen3MoeTopKRouter,
    RouterBase,
)
_LAYER = re.compile(r"(?:^|\.)layers\.(\d+)(?:\.|$)")


def routers_of(model: nn.Module) -> list[tuple[str, int, nn.Module]]:
    """The routers of a model in layer order as (name, layer, module); empty for a dense model.

    Knows ``RouterBase`` and the stock routers of Mixtral, OLMoE, FlexOLMo, Qwen2-MoE and Qwen3-MoE, all of which return
    (logits (N, E), weights (N, k), index (N, k)) and have ``num_experts`` and ``top_k``.
    Raises ``ConfigError`` for an MoE model that has none of these.
    """
    found = [(name, layer_of(name), module) for name, module in model.named_modules() if isinstance(module, _ROUTERS)]
    if not found and expert_parameters(model):
        raise ConfigError(
            f"{type(model).__name__} has experts but no router of a known class, so its routing cannot be recorded; "
            "use the families flex_olmo, mixtral, olmoe, qwen2_moe or qwen3_moe, or a router that inherits from "
            "RouterBase."
        )
    return sorted(found, key=lambda router: router[1])


def expert_parameters(model: nn.Module) -> list[str]:
    """Names of the stacked expert parameters, shape (E, ...): the first axis is the expert."""
    return [
        f"{prefix}.{name}" if prefix else name
        for prefix, module in _experts_modules(model)
        for name, parameter in module.named_parameters(recurse=False)
        if parameter.ndim >= 2 and parameter.shape[0] == module.num_experts
    ]


def roles_of(model: nn.Module) -> dict[str, str]:
    """The role of every parameter by name, in the order of ``named_parameters``; one of ``ROLES``.

    A tied head is the embedding. Norms inside attention (QK-norm) are norms. ``probes`` are parameters of a
    submodule called ``probes``.
    """
    routers = {id(p) for _, _, module in routers_of(model) for p in module.parameters()}
    experts = {id(p) for _, module in _experts_modules(model) for p in module.parameters()}
    norms = {id(p) for m in model.modules() if "Norm" in type(m).__name__ for p in m.parameters(recurse=False)}
    embedding = {id(p) for p in _module_of(model, "get_input_embeddings")}
    head = {id(p) for p in _module_of(model, "get_output_embeddings")} - embedding

    def role(name: str, parameter: nn.Parameter) -> str:
        key, parts = id(parameter), name.split(".")
        for members, label in (
            (routers, "router"),
            (experts, "experts"),
            (norms, "norm"),
            (embedding, "embedding"),
            (head, "head"),
        ):
            if key in members:
                return label
        if "probes" in parts:
            return "probes"
        if any(part in ("attention", "attn", "self_attn") for part in parts):
            return "attention"
        if any(part in ("feed_forward", "ffn", "mlp") for part in parts):
            return "ffn"
        return "other"

    return {name: role(name, parameter) for name, parameter in model.named_parameters()}


def _experts_modules(model: nn.Module) -> Iterator[tuple[str, Any]]:
    for name, module in model.named_modules():
        if name.rpartition(".")[2] == "experts" and hasattr(module, "num_experts"):
            yield name, module


def _module_of(model: nn.Module, getter: str) -> Iterator[nn.Parameter]:
    module = getattr(model, getter)() if hasattr(model, getter) else None
    return module.parameters() if isinstance(module, nn.Module) else iter(())


def layer_of(name: str) -> int:
    """The decoder layer that a parameter or module belongs to by its name; -1 outside of layers."""
    match = _LAYER.search(name)
    return int(match.group(1)) if match else -1
