"""Taking experts away for a while: a model as it would be without some of its experts, and whole again afterwards."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, Literal

import torch
from torch import nn

from ...registry.errors import ConfigError
from .parameters import routers_of
from .router import RouterBase

Mode = Literal["mask", "zero"]


@contextmanager
def without_experts(model: nn.Module, experts: Mapping[int, Sequence[int]], mode: Mode = "mask") -> Iterator[None]:
    """Run the block on the model without ``experts``, given as layer -> expert numbers, both from 0.

    ``mask`` sets their logits to -inf: every token goes to the best ``top_k`` of the other experts, with the weights
    that the router's own gate gives these. ``zero`` routes as before and lets their outputs count for nothing.
    For routers that inherit from ``RouterBase`` and those of Mixtral, OLMoE and Qwen3-MoE (Lu 2024, 2402.14800, skips
    experts so). Parameters and buffers are never written to, and nothing of this stays on the model.
    Raises ``ConfigError`` for a layer without router, an expert it does not have, too few experts left to choose
    from, and a router that chooses a masked expert all the same.
    """
    routers = {layer: (name, module) for name, layer, module in routers_of(model)}
    with ExitStack() as undo:
        for layer, banned in experts.items():
            if layer not in routers:
                raise ConfigError(
                    f"layer {layer} of {type(model).__name__} has no router; its routed layers are "
                    f"{', '.join(map(str, sorted(routers))) or 'none'}."
                )
            name, module = routers[layer]
            _check(name, module, banned, mode)
            if banned:
                undo.enter_context(_silenced(module, banned) if mode == "zero" else _masked(name, module, banned))
        yield


def _check(name: str, module: Any, banned: Sequence[int], mode: str) -> None:
    if mode not in {"mask", "zero"}:
        raise ConfigError(f"experts are taken away by 'mask' or by 'zero', not by '{mode}'.")
    wrong = [expert for expert in banned if not 0 <= expert < module.num_experts]
    if wrong:
        raise ConfigError(f"router '{name}' has experts 0 to {module.num_experts - 1}, not {wrong[0]}.")
    left = module.num_experts - len(set(banned))
    if mode == "mask" and left < module.top_k:
        raise ConfigError(
            f"router '{name}' sends every token to {module.top_k} experts, but only {left} of {module.num_experts} "
            "would be left; take fewer away, or zero their outputs instead."
        )


@contextmanager
def _silenced(module: nn.Module, banned: Sequence[int]) -> Iterator[None]:
    """Weigh the outputs of ``banned`` with 0."""
    chosen = torch.tensor(sorted(set(banned)))

    def silence(_module: nn.Module, _inputs: Any, output: Any) -> Any:
        logits, weights, index = output
        return logits, weights.masked_fill(torch.isin(index, chosen.to(index.device)), 0.0), index

    handle = module.register_forward_hook(silence)
    try:
        yield
    finally:
        handle.remove()


@contextmanager
def _masked(name: str, module: nn.Module, banned: Sequence[int]) -> Iterator[None]:
    chosen = torch.tensor(sorted(set(banned)))
    with ExitStack() as undo:
        if isinstance(module, RouterBase):
            undo.enter_context(_scored(module, chosen))
        else:
            handle = module.register_forward_hook(_rerouting(chosen))
            undo.callback(handle.remove)

        def guard(_module: nn.Module, _inputs: Any, output: Any) -> None:
            if torch.isin(output[2], chosen.to(output[2].device)).any():
                raise ConfigError(
                    f"router '{name}' ({type(module).__name__}) chose an expert whose logit was -inf, so this router "
                    "cannot be masked; let its forward select by `scores` and `selection_bias`, or use mode 'zero'."
                )

        handle = module.register_forward_hook(guard)
        undo.callback(handle.remove)
        yield


@contextmanager
def _scored(router: RouterBase, banned: torch.Tensor) -> Iterator[None]:
    """Let the router itself choose and weigh among scores of which some are -inf."""
    scores, bias = router.scores, router.selection_bias

    def masked(hidden: torch.Tensor) -> torch.Tensor:
        return _without(scores(hidden), banned)

    router.__dict__["scores"] = masked
    # A probability of 0 with a bias above it could still be among the largest. Another tensor, so that the buffer
    # itself is never written to.
    router.selection_bias = _without(bias, banned)
    try:
        yield
    finally:
        router.selection_bias = bias
        del router.__dict__["scores"]


def _rerouting(banned: torch.Tensor) -> Callable[[Any, Any, Any], Any]:
    """What the stock routers compute from logits, with some of these at -inf."""

    def reroute(module: Any, _inputs: Any, output: Any) -> Any:
        logits, weights, _ = output
        logits = _without(logits, banned)
        probabilities = logits.softmax(-1, dtype=torch.float32)
        values, index = probabilities.topk(module.top_k, dim=-1)
        if getattr(module, "norm_topk_prob", True):  # Mixtral has no such field and always normalises
            values = values / values.sum(dim=-1, keepdim=True)
        return logits, values.to(weights.dtype), index

    return reroute


def _without(values: torch.Tensor, banned: torch.Tensor) -> torch.Tensor:
    return values.index_fill(-1, banned.to(values.device), -torch.inf)
