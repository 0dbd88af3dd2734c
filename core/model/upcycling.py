"""Upcycling: a dense model becomes a mixture of experts that computes the same, every expert a copy of its FFN.

A routed layer takes the FFN that it used in the dense model. In a seed with fewer FFNs than layers, ``shared_ffn``
names it. With the motif of three routed layers and one dense, routed layer l uses that of its own block, ``l // 3``, or
they take turns, ``l % 20`` for 20 FFNs, as the original has it, which sends routed layer 40, of block 13, to the FFN of
block 0 (SPEC E3.5). Either way the seed was trained with that FFN, so cloning it preserves the function (SPEC E3.4).

The copies are equal, and nothing pushes them apart until something breaks the symmetry: see ``breaking``. Sources:
sparse upcycling, Komatsuzaki 2022, 2212.05055; He 2024, 2410.07524.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import torch
from transformers import CONFIG_MAPPING, AutoModelForCausalLM, PretrainedConfig, PreTrainedModel

from ...registry.errors import ConfigError
from . import modeling  # noqa: F401  registers phasegate_moe
from .companions import hand_over
from .parameters import layer_of, routers_of
from .seeding import seeded

#: Dense families and the MoE family whose layers are the same but for their FFN.
SIBLINGS: Mapping[str, str] = MappingProxyType(
    {"llama": "mixtral", "mistral": "mixtral", "olmo2": "flex_olmo", "qwen2": "qwen2_moe", "qwen3": "qwen3_moe"}
)
_OWN = "phasegate_moe"
_SLOPE = 1e-6  # a weight that is always 1 has none, but for rounding
_COUNTS = ("n_routed_experts", "num_experts", "num_local_experts")
_IDENTITY = frozenset({"_name_or_path", "architectures", "dtype", "model_type", "transformers_version"})
_FFN, _ROUTER, _SHARED = ".mlp.", ".mlp.gate.", ".mlp.shared_expert"
_STACKED = {
    "experts.down_proj": ("down_proj.weight",),
    "experts.gate_up_proj": ("gate_proj.weight", "up_proj.weight"),
}


def sibling_config(dense: PretrainedConfig, experts: int, top_k: int) -> PretrainedConfig:
    """The configuration of the MoE that computes what a dense model computes once its experts are clones.

    Every field that both families have is the dense model's (rotary frequencies among them: the families' defaults
    differ by a factor of 100), weights of chosen experts add up to 1, and the library's auxiliary loss is off.
    Raises ``ConfigError`` for a family without sibling and for a form that the sibling cannot take over.
    """
    fields = dense.to_dict()
    family = dense.model_type
    _check_dense(family, fields)
    if not 1 <= top_k <= experts:
        raise ConfigError(f"A token cannot pass {top_k} of {experts} experts; choose top_k from 1 to {experts}.")
    kind = CONFIG_MAPPING[SIBLINGS[family]]
    known = set(kind().to_dict()) - _IDENTITY
    taken = {
        name: value
        for name, value in fields.items()
        if name in known or name == "head_dim" or name.startswith("phasegate_")
    }
    settings: dict[str, Any] = {
        "moe_intermediate_size": fields["intermediate_size"],
        "norm_topk_prob": True,
        "num_experts": experts,
        "num_experts_per_tok": top_k,
        "num_local_experts": experts,
        "output_router_logits": False,
        "router_aux_loss_coef": 0.0,
        "shared_expert_intermediate_size": 0,  # Qwen2-MoE's other expert, which no dense model has
    }
    taken |= {name: value for name, value in settings.items() if name in known}
    if (types := fields.get("layer_types")) and "layer_types" not in known:
        slides = _slides(family, types)
        taken |= {"use_sliding_window": slides} if "use_sliding_window" in known else {}
    return kind(**taken)


@torch.no_grad()
def clone(dense: PreTrainedModel, target: PreTrainedModel) -> PreTrainedModel:
    """Copy the weights of a dense model into an MoE with the same trunk, in place, and return the MoE.

    Every expert gets the FFN that its layer used in the dense model, routers keep their fresh weights, and an expert
    for all tokens that the dense model does not have is silenced (its last matrix is 0). Nothing is copied unless all
    fits: raises ``ConfigError`` with the name of a weight that has no source or no place.
    """
    if dense.config.tie_word_embeddings != target.config.tie_word_embeddings:
        raise ConfigError(
            f"tie_word_embeddings is {dense.config.tie_word_embeddings} in the dense model and "
            f"{target.config.tie_word_embeddings} in the MoE; make both equal."
        )
    source, shared = dense.state_dict(), getattr(dense.config, "shared_ffn", None) or ()
    used: set[str] = set()
    planned: list[tuple[torch.Tensor, list[torch.Tensor]]] = []
    for key, weight in target.state_dict().items():
        if key.endswith(f"{_SHARED}.down_proj.weight"):
            planned.append((weight, [weight.new_zeros(weight.shape)]))
        if _ROUTER in key or _SHARED in key:
            continue
        names = _sources(key, shared)
        parts = [source[name] for name in names if name in source]
        wanted = weight.shape[1:] if key.endswith(tuple(_STACKED)) else weight.shape
        if len(parts) < len(names) or _joined(parts) != wanted:
            found = " and ".join(
                f"{name} {tuple(source[name].shape) if name in source else '(missing)'}" for name in names
            )
            raise ConfigError(
                f"The weight {key} {tuple(weight.shape)} of the MoE cannot be filled from {found} of the dense model; "
                "give the MoE the sizes of the dense model, and experts as wide as its FFN."
            )
        planned.append((weight, parts))
        used.update(names)
    if unused := sorted(set(source) - used):
        raise ConfigError(
            f"The MoE has no place for the weight {unused[0]} of the dense model ({len(unused)} such in all); upcycle "
            f"a model without biases in its FFN, of a family that works: {', '.join(SIBLINGS)}."
        )
    for weight, parts in planned:
        weight.copy_(torch.cat(parts) if len(parts) > 1 else parts[0])
    return target


def upcycle(dense: PreTrainedModel, experts: int, top_k: int, seed: int) -> PreTrainedModel:
    """A stock MoE in fp32 on the CPU that computes what a dense model of a stock family computes.

    Equal seeds give equal routers. Its stock router normalises the weights of the chosen experts, so that with
    ``top_k`` 1 their value is always 1 and the router learns nothing from the task loss (SPEC E3.3; see ``learns``);
    with 2 it learns once the experts differ. What travels with the dense model goes along. Raises ``ConfigError`` as
    ``sibling_config`` and ``clone`` do, and when the two models disagree on a row of random tokens.
    """
    config = sibling_config(dense.config, experts, top_k)
    with seeded(seed):
        model: PreTrainedModel = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    clone(dense, model)
    tokens = torch.randint(config.vocab_size, (1, 32), generator=torch.Generator().manual_seed(seed))
    if not difference(dense, model, tokens) <= torch.finfo(dense.dtype).eps ** 0.5:
        raise ConfigError(
            f"This {dense.config.model_type} has a setting that {config.model_type} does not follow, so that the clone "
            "computes something else; compare their configurations, and remove what only the dense model has."
        )
    return _handed(dense, model)


def upcycle_own(dense: PreTrainedModel, experts: int, *, seed: int, top_k: int | None = None) -> PreTrainedModel:
    """The platform's own MoE in fp32 on the CPU that computes what its dense seed computes.

    The layers that the seed's ``sparse_layers`` name get ``experts`` experts of which a token passes ``top_k`` (None:
    as configured). Its router is built from the registry in force (see ``registry.current``); equal seeds give equal
    routers. Raises ``ConfigError`` for a model that is no seed, and for a router whose weights do not add up to 1: with
    a gate that is the probability itself, clones would be scaled down at once, by 4 with 4 experts (SPEC 2A.3).
    """
    config = copy.deepcopy(dense.config)
    sparse = getattr(config, "sparse_layers", None)
    if config.model_type != _OWN or not sparse:
        raise ConfigError(
            f"This {config.model_type} model is no dense seed (its configuration names no sparse_layers); build one "
            "with model.start: dense."
        )
    config.mlp_only_layers = [layer for layer in range(config.num_hidden_layers) if layer not in sparse]
    config.shared_ffn = config.sparse_layers = None
    config.num_experts = experts
    config.num_experts_per_tok = config.num_experts_per_tok if top_k is None else top_k
    if not 1 <= config.num_experts_per_tok <= experts:
        raise ConfigError(
            f"A token cannot pass {config.num_experts_per_tok} of {experts} experts; choose top_k from 1 to {experts}."
        )
    with seeded(seed):
        model: PreTrainedModel = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    _check_gates(model.eval(), seed)
    return _handed(dense, clone(dense, model))


def learns(model: PreTrainedModel) -> bool:
    """Whether the task loss can reach the routers of a model, in every layer.

    It cannot where a token passes one expert and weights are normalised, as in the stock families: the weight is then
    always 1, and the router follows other losses alone (SPEC E3.3). False for a model without routers.
    """
    generator, routers = torch.Generator().manual_seed(0), routers_of(model)
    for _, _, router in routers:
        hidden = torch.randn(64, model.config.hidden_size, generator=generator)
        hidden = hidden.to(next(router.parameters(), hidden)).requires_grad_()
        with torch.enable_grad():
            weights = router(hidden)[1]  # shape: (64, k)
        # A weight follows the hidden state as it follows the router, and that frozen or not. Not all weights of a
        # token: their sum is 1 with any number of experts.
        if not weights.requires_grad:
            return False
        (slope,) = torch.autograd.grad(weights[:, 0].sum(), hidden)
        if not bool(slope.abs().max() > _SLOPE):
            return False
    return bool(routers)


@torch.no_grad()
def difference(one: PreTrainedModel, other: PreTrainedModel, tokens: torch.Tensor) -> float:
    """How far the logits of two models are apart at most on tokens (B, T), as a share of the largest of ``one``."""
    logits = []
    for model in (one, other):
        training = model.training
        model.eval()
        try:
            logits.append(model(input_ids=tokens.to(model.device), use_cache=False).logits.float().cpu())
        finally:
            model.train(training)
    return float((logits[0] - logits[1]).abs().max() / logits[0].abs().max())


def _check_dense(family: str, fields: Mapping[str, Any]) -> None:
    works = f"upcycle a model of a family that works: {', '.join(SIBLINGS)}."
    if family == _OWN:
        raise ConfigError(
            "The platform's own model becomes an MoE from a dense seed of its own, not through a sibling family; build "
            "it with model.start: dense."
        )
    if any(name in fields for name in _COUNTS):
        raise ConfigError(f"The family {family} has experts already; {works}")
    if family not in SIBLINGS:
        raise ConfigError(f"The family {family} has no MoE sibling in transformers with the same layers; {works}")
    if fields["hidden_act"] != "silu":
        raise ConfigError(
            f"This {family} has hidden_act '{fields['hidden_act']}', but only SwiGLU (silu) works; {works}"
        )
    biases = ["mlp_bias"] if SIBLINGS[family] != "mixtral" else ["attention_bias", "mlp_bias"]
    for name in biases:
        if fields.get(name):
            raise ConfigError(f"This {family} has {name}, for which {SIBLINGS[family]} has no place; {works}")


def _slides(family: str, types: Sequence[str]) -> bool:
    """Whether attention looks back over a window; ``ConfigError`` where it does so in some layers only."""
    if len(set(types)) > 1:
        raise ConfigError(
            f"This {family} has a sliding window in some layers only (layer_types), and {SIBLINGS[family]} has it in "
            "all or none; choose a model with one kind of attention."
        )
    return types[0] == "sliding_attention"


def _sources(key: str, shared: Sequence[int | None]) -> list[str]:
    """The weights of the dense model that fill a weight of the MoE, one below the other."""
    before, ffn, rest = key.partition(_FFN)
    if not ffn:
        return [key]
    layer = layer_of(key)
    source = shared[layer] if shared and shared[layer] is not None else layer
    home = f"{before.removesuffix(f'.{layer}')}.{source}{ffn}"
    return [home + name for name in _STACKED.get(rest, (rest,))]


def _joined(parts: Sequence[torch.Tensor]) -> torch.Size:
    return torch.Size((sum(part.shape[0] for part in parts), *parts[0].shape[1:]))


@torch.no_grad()
def _check_gates(model: PreTrainedModel, seed: int) -> None:
    hidden = torch.randn(64, model.config.hidden_size, generator=torch.Generator().manual_seed(seed))
    for name, _, router in routers_of(model):
        weights = router(hidden)[1]  # shape: (64, k)
        if not bool((weights.sum(-1) - 1.0).abs().max() < 1e-4):
            raise ConfigError(
                f"The router '{name}' weighs the experts of a token with {float(weights.sum(-1).mean()):.2f} in all "
                "instead of 1, so clones would not compute what the dense model does; choose the gate straight-through "
                "with one expert per token, or normalized."
            )


def _handed(dense: PreTrainedModel, model: PreTrainedModel) -> PreTrainedModel:
    model.generation_config = copy.deepcopy(dense.generation_config)
    hand_over(dense, model)
    return model.train(dense.training)
