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
    2026, 2604.19835). Until there the new model computes the same, but for the tokens that the larger router sends to
    another expert: none under the linear router, a few under a torus router, more the further its positions have left
    the lattice. Then the breaker of that kind and strength makes all copies but the first of each different, and breaks
    the ties of the router, without which all tokens of an expert would go to one copy (see ``breaking.break_experts``);
    strength 0 leaves everything equal. ``top_k`` is how many experts a token passes afterwards, None as many as before.
    What travels with the model goes along. The router is built from the registry in force.

    Raises ``ConfigError`` for a model that is not the platform's own, for a router that cannot be extended, for a
    ``top_k`` that is none, and where copies together would count otherwise than the expert did: with a gate that is the
    probability itself each has half of it, and where a token passes two experts, these would be two copies of one.
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
    config.num_experts_per_tok = model.config.num_experts_per_tok if top_k is None else top_k
    if not 1 <= config.num_experts_per_tok <= config.num_experts:
        raise ConfigError(
            f"A token cannot pass {config.num_experts_per_tok} of {config.num_experts} experts; choose top_k from 1 to "
            f"{config.num_experts}."
        )
    with seeded(seed):
        grown: PreTrainedModel = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    _copy(model, grown.eval(), copies)
    for (name, _, old), (_, _, new) in zip(routers_of(model), routers_of(grown), strict=True):
        assert isinstance(old, RouterBase) and isinstance(new, RouterBase)
        new.extend_from(old, copies)
        _check(name, old, new, copies, seed)
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
    """Let both routers weigh random hidden states: what a token's experts count together must stay.

    Which experts these are is the router's business, and what it costs is measured on text by whoever grows the model.
    But a token may not pass a part of an expert's copies beside another's, whatever they count together.
    """
    splits = new.top_k != copies * old.top_k and (new.top_k, old.top_k) != (1, 1)
    hidden = torch.randn(64, old.hidden_size, generator=torch.Generator().manual_seed(seed))
    smaller = copy.deepcopy(old).to(device="cpu", dtype=torch.float32).eval()
    before, after = smaller(hidden)[1].sum(-1), new(hidden)[1].sum(-1)  # shape: (64,)
    if splits or not bool((before - after).abs().max() < 1e-4):
        raise ConfigError(
            f"The router '{name}' would weigh copies of an expert otherwise than the expert itself, which changes what "
            "the model computes; grow it with gate straight-through and one expert per token, or with gate normalized "
            f"and top_k {copies * old.top_k}."
        )
