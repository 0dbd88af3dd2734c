"""Longer contexts: the same weights under rotary positions that turn more slowly."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from ...registry.errors import ConfigError
from ..config.context import implied_factor, ntk_base

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedModel

    from ..config.schema import ContextSection

FIELD = "phasegate_context"  # in config.json: what the model was first built with, and how far it was stretched


def extend_context(model: PreTrainedModel, context: ContextSection, length: int) -> PreTrainedModel:
    """Stretch the model's rotary positions in place and return it: the same weights, the same companions.

    ``ntk`` scales the rotary base by factor^(d/(d-2)) for heads of size d (NTK-aware scaling, in Peng 2023,
    2309.00071), ``abf`` sets it (Xiong 2023, 2309.16039); ``yarn`` (Peng 2023) and ``linear`` (Chen 2023, 2306.15595)
    are the library's rotary types. All are static: frequencies do not depend on how long a text is, so keys in a cache
    stay right. Factors count from what the model was first built with, which its configuration keeps: a repeated call
    changes nothing, and a model that already reaches further is left as it is. ``max_position_embeddings`` grows to
    first length x factor; with ``abf`` to ``length``, the rows it is about to learn.

    Raises ``ConfigError`` for a model without one set of rotary positions, for ``yarn`` and ``linear`` on positions
    that are scaled already, and for a ``length`` that these settings do not reach.
    """
    if context.rope == "keep":
        return model
    config: Any = model.config
    modules = list(_rotary_modules(model))
    first = getattr(config, FIELD, None) or {
        "factor": 1.0,
        "length": config.max_position_embeddings,
        "rope_parameters": dict(getattr(config, "rope_parameters", None) or {}),
    }
    if not modules or "rope_theta" not in first["rope_parameters"]:
        raise ConfigError(
            f"context.rope {context.rope} stretches one set of rotary positions, which {type(model).__name__} does not "
            "have; set context.rope to keep, or train another model."
        )
    parameters, factor = _stretched(context, first, dim=2 * modules[0][2].inv_freq.numel())
    reach = int(first["length"] * factor)
    if length > reach:
        raise ConfigError(
            f"context.rope {context.rope} takes a model that was built for {first['length']} positions to {reach}, but "
            f"the step trains on {length}; raise context.{'theta' if context.rope == 'abf' else 'factor'} or lower "
            "sequence_length."
        )
    if factor < first["factor"]:
        return model
    config.rope_parameters = parameters
    config.max_position_embeddings = max(config.max_position_embeddings, length if context.rope == "abf" else reach)
    setattr(config, FIELD, {**first, "factor": factor})
    for parent, name, module in modules:
        # A changed configuration alone does nothing: frequencies are computed when the module is made.
        setattr(parent, name, type(module)(config=config).to(module.inv_freq.device).train(module.training))
    return model


def _rotary_modules(model: nn.Module) -> Iterator[tuple[nn.Module, str, Any]]:
    """The modules that hold rotary frequencies, each with its parent and its name there."""
    import torch

    for parent in model.modules():
        for name, module in parent.named_children():
            if isinstance(getattr(module, "inv_freq", None), torch.Tensor) and hasattr(module, "rope_type"):
                yield parent, name, module


def _stretched(context: ContextSection, first: Any, dim: int) -> tuple[dict[str, Any], float]:
    """The library's rotary parameters for these settings, and how many times the first length they reach."""
    old = dict(first["rope_parameters"])
    if context.rope in {"abf", "ntk"}:
        base = float(old["rope_theta"])
        if context.rope == "ntk":
            return {**old, "rope_theta": ntk_base(base, context.factor, dim)}, context.factor
        if context.theta is None or context.theta <= base:
            raise ConfigError(
                f"context.rope abf raises the rotary base, which is {base:g} in this model, but context.theta is "
                f"{context.theta}; give a larger one."
            )
        return {**old, "rope_theta": context.theta}, implied_factor(context.theta, base, dim)
    if old.get("rope_type", "default") != "default":
        raise ConfigError(
            f"context.rope {context.rope} cannot be laid over rotary positions that are of the type "
            f"{old['rope_type']} already; use ntk or abf, which change the base alone."
        )
    scaled = {**old, "rope_type": context.rope, "factor": context.factor}
    if context.rope == "yarn":
        scaled["original_max_position_embeddings"] = first["length"]
    return scaled, context.factor
