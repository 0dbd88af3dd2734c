"""Another router in a trained model: all else keeps its weights, and the new routers are fitted to what they meet."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from transformers import AutoModelForCausalLM

from ...registry.current import using
from ...registry.errors import ConfigError
from .companions import hand_over
from .distances import code_distances, expert_distances
from .modeling import PhasegateMoeForCausalLM
from .parameters import routers_of
from .quantization import encode_experts, quantization_of
from .router import RouterBase, Takeover
from .seeding import seeded

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def reroute(
    model: PreTrainedModel,
    router: str,
    options: Mapping[str, Any],
    batches: Sequence[Mapping[str, torch.Tensor]],
    seed: int,
    registry: Any,
) -> tuple[PreTrainedModel, dict[str, float]]:
    """The model with the router component ``router`` in place of its own, and what the new routers report, by layer.

    Each new router takes over from the old one of its layer (``RouterBase.take_over``): it is told the hidden states
    that reach it on ``batches`` and how much the experts differ. Companions and generation settings go along. Raises
    ``ConfigError`` for a model of another family, which has its router built in.
    """
    if not isinstance(model, PhasegateMoeForCausalLM):
        raise ConfigError(
            f"{type(model).__name__} has its own router, which cannot be replaced; build the experiment's model with "
            "use: moe."
        )
    old = {layer: module for _, layer, module in routers_of(model)}
    hidden = router_inputs(model, batches)
    config = copy.deepcopy(model.config)
    config.router, config.router_options = router, dict(options)
    with using(registry), seeded(seed):
        twin = AutoModelForCausalLM.from_config(config, dtype=model.dtype)
    inside = tuple(f"{name}." for name, _, _ in routers_of(model))
    kept = {name: tensor for name, tensor in model.state_dict().items() if not name.startswith(inside)}
    left = twin.load_state_dict(kept, strict=False)
    fresh = tuple(f"{name}." for name, _, _ in routers_of(twin))
    if left.unexpected_keys or any(not name.startswith(fresh) for name in left.missing_keys):
        raise ConfigError(
            f"The router '{router}' changes more of the model than its routers; use one that is a module of its own."
        )
    quantized = quantization_of(model) is not None
    distances = code_distances(encode_experts(model)) if quantized else expert_distances(model)
    reports: dict[str, float] = {}
    for _, layer, new in routers_of(twin):
        assert isinstance(new, RouterBase)
        told = new.take_over(Takeover(hidden=hidden[layer], old=old[layer], distances=distances, seed=seed))
        reports |= {f"{key}/{layer}": value for key, value in told.items()}
    twin.tie_weights()
    twin.generation_config = model.generation_config
    hand_over(model, twin)
    return twin.eval(), reports


@torch.no_grad()
def router_inputs(model: nn.Module, batches: Sequence[Mapping[str, torch.Tensor]]) -> dict[int, torch.Tensor]:
    """The hidden states that reach the routers of each layer on batches of packed rows, shape (N, H), fp32."""
    found: dict[int, list[torch.Tensor]] = {layer: [] for _, layer, _ in routers_of(model)}

    def listen(layer: int) -> Any:
        def hook(_module: nn.Module, args: tuple[torch.Tensor, ...]) -> None:
            found[layer].append(args[0].reshape(-1, args[0].shape[-1]).float())

        return hook

    handles = [module.register_forward_pre_hook(listen(layer)) for _, layer, module in routers_of(model)]
    device, training = next(model.parameters()).device, model.training
    model.eval()
    try:
        for batch in batches:
            inputs = {key: batch[key].to(device) for key in ("input_ids", "position_ids") if key in batch}
            model(**inputs, use_cache=False)
    finally:
        model.train(training)
        for handle in handles:
            handle.remove()
    return {layer: torch.cat(parts) for layer, parts in found.items()}
