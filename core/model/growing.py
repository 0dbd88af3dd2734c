"""Progressive growth: an MoE with more experts, which begin as copies of those it had."""

from __future__ import annotations

import copy

import torch
from torch import nn
from transformers import AutoModelForCausalLM, PreTrainedModel

from ...registry.errors import ConfigError
from .breaking import Kind, break_experts
from .companions import hand_over
from .modeling import PhasegateMoeForCausalLM
from .parameters import expert_parameters, routers_of
from .router import RouterBase
from .seeding import seeded

_ROUTER = ".mlp.gate."
_SAME = 0.9  # of all tokens: positions on a torus that have left the lattice send a few to another expert


def grow(
    model: PreTrainedModel,
    copies: int = 2,
    *,
    seed: int,
    top_k: int | None = None,
    kind: Kind = "noise",
    strength: float = 0.01,
) -> PreTrainedModel:
    """The model with ``copies`` times as many experts, in fp32 on the CPU; 8 to 16 to 32 is two calls.

    Expert e becomes the experts copies * e to copies * e + copies - 1, and the router is extended (Expert Upcycling
    2026, 2604.19835). Until there the new model computes the same. Then the breaker of that kind and strength makes
    all copies but the first of each different, and breaks the ties of the router, without which all tokens of an
    expert would go to one copy (see ``breaking.break_experts``); strength 0 leaves everything equal.
    ``top_k`` is how many experts a token passes afterwards, None as many as before. What travels with the model goes
    along. The router is built from the registry in force.

    Raises ``ConfigError`` for a model that is not the platform's own, for a router that cannot be extended, and where
    copies together would count otherwise than the expert did: with a gate that is the probability itself each has
    half of it, and where a token passes two experts, these would be two copies of one.
    """
    if not isinstance(model, PhasegateMoeForCausalLM) or not routers_of(model):
        raise ConfigError(
            f"{type(model).__name__} cannot grow, only the platform's own model with experts can; upcycle a dense seed "
            "first."
        )
    if copies < 2:
        raise ConfigError(f"copies is {copies}, which grows nothing; choose 2 or more.")
    config = copy.deepcopy(model.config)
    config.num_experts = copies * model.config.num_experts
    config.num_experts_per_tok = top_k or model.config.num_experts_per_tok
    with seeded(seed):
        grown: PreTrainedModel = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    _copy(model, grown.eval(), copies)
    for (name, _, old), (_, _, new) in zip(routers_of(model), routers_of(grown), strict=True):
        assert isinstance(old, RouterBase) and isinstance(new, RouterBase)
        new.extend_from(old, copies)
        _check(name, old, copy.deepcopy(new), copies, seed)
    if strength:
        break_experts(grown, kind, strength, seed=seed, spare=copies)
    grown.generation_config = copy.deepcopy(model.generation_config)
    hand_over(model, grown)
    return grown.train(model.training)


@torch.no_grad()
def _copy(model: nn.Module, grown: nn.Module, copies: int) -> None:
    """All weights but those of routers."""
    stacked, source = set(expert_parameters(model)), model.state_dict()
    for key, weight in grown.state_dict().items():
        if key in stacked:
            weight.view(-1, copies, *weight.shape[1:]).copy_(source[key][:, None])  # shape: (E, copies, R, C)
        elif _ROUTER not in key:
            weight.copy_(source[key])


@torch.no_grad()
def _check(name: str, old: RouterBase, new: RouterBase, copies: int, seed: int) -> None:
    """Let both routers weigh the experts of random hidden states: copies together must count as the expert did.

    An old router with ties, such as one that has grown before, could choose either expert; so this compares routers
    with other parameters, which are extended in the same way.
    """
    generator = torch.Generator().manual_seed(seed)
    old = copy.deepcopy(old).to(device="cpu", dtype=torch.float32).eval()
    for parameter in old.parameters():
        parameter.add_(0.02 * torch.randn(parameter.shape, generator=generator))
    new.extend_from(old, copies)
    hidden = torch.randn(64, old.hidden_size, generator=generator)
    old_weights, new_weights = _weights(old, hidden), _weights(new, hidden).view(len(hidden), -1, copies).sum(-1)
    same = (old_weights - new_weights).abs().amax(-1) < 1e-4
    if not bool(same.float().mean() >= _SAME):
        raise ConfigError(
            f"The router '{name}' would weigh copies of an expert otherwise than the expert itself, which changes what "
            "the model computes; grow it with gate straight-through and one expert per token, or with gate normalized "
            f"and top_k {copies * old.top_k}."
        )


def _weights(router: RouterBase, hidden: torch.Tensor) -> torch.Tensor:
    """What every expert counts for every token, 0 where it is not chosen. shape: (N, H) -> (N, E)"""
    logits, weights, index = router(hidden)
    return torch.zeros_like(logits).scatter_add(1, index, weights)
