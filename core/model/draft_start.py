"""How a draft network begins: sized after its target, and as far as their forms agree computing what it computes."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from ...registry.errors import ConfigError
from .drafter import DrafterConfig, DrafterForCausalLM, make_drafter

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@dataclass(frozen=True, slots=True, kw_only=True)
class DraftShape:
    """Sizes of a draft network; what is None is the target's (the FFN: four times the width)."""

    hidden_size: int | None = None
    layers: int = 1
    heads: int | None = None
    intermediate_size: int | None = None


def build_draft(model: PreTrainedModel, shape: DraftShape, seed: int) -> DrafterForCausalLM:
    """A new network for this target; equal seeds give equal bits, and global random state stays as it was.

    P begins as the identity, or as the leading right singular vectors of E where the draft is narrower. Attention, and
    the last norm, begin as those of target layers spread from the first to the last, seen through P, where they have
    the draft's form (separate projections, norms per head); everything else begins at random.
    """
    text = model.config.get_text_config(decoder=True)
    width = model.get_input_embeddings().weight.shape[1]
    hidden = shape.hidden_size or width
    heads = shape.heads or text.num_attention_heads
    given = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    own = heads == text.num_attention_heads
    if not own and hidden % heads:
        raise ConfigError(f"A draft model of width {hidden} has no {heads} equal heads; change heads or hidden_size.")
    config = DrafterConfig(
        vocab_size=model.get_input_embeddings().num_embeddings,
        embedding_size=width,
        hidden_size=hidden,
        intermediate_size=shape.intermediate_size or 4 * hidden,
        num_hidden_layers=shape.layers,
        num_attention_heads=heads,
        num_key_value_heads=(getattr(text, "num_key_value_heads", None) or heads) if own else heads,
        head_dim=given if own else hidden // heads,
        max_position_embeddings=text.max_position_embeddings,
        rope_parameters=copy.deepcopy(text.rope_parameters),
        rms_norm_eps=getattr(text, "rms_norm_eps", 1e-6),
        initializer_range=getattr(text, "initializer_range", 0.02),
    )
    network = make_drafter(config, seed)
    network.model.embed_tokens.borrow(model.get_input_embeddings())
    with torch.no_grad():
        _begin_like(network, model)
    return network


def _begin_like(network: DrafterForCausalLM, model: PreTrainedModel) -> None:
    """Copy from the target what has the draft's form: with h = P g for its states h and the draft's g, a linear map W
    of a normalised h becomes W diag(w) P, times sqrt(d / d_draft) because the norm is over fewer parts."""
    embedding = network.model.embed_tokens
    table = embedding.table.float()
    width, hidden = embedding.projection.shape
    if hidden < width:
        # shape: (d, d) -> leading eigenvectors as columns, the largest first
        vectors = torch.linalg.eigh(table.T @ table).eigenvectors.flip(-1)[:, :hidden]
        # Eigenvectors are unique up to sign; the largest part is made positive.
        signs = vectors.gather(0, vectors.abs().argmax(0, keepdim=True)).sign()
        projection = vectors * signs
    else:
        projection = torch.eye(width, hidden, device=table.device)
    embedding.projection.copy_(projection)
    stretch = math.sqrt(width / hidden)
    layers = _layers_of(model)
    count = len(network.model.layers)
    for place, own in enumerate(network.model.layers):
        there = layers[round(place * (len(layers) - 1) / max(1, count - 1))] if layers else None
        if there is None or not _alike(there, own, width):
            continue
        attention, norm = there.self_attn, there.input_layernorm.weight.float()
        for name in ("q_proj", "k_proj", "v_proj"):
            getattr(own.self_attn, name).weight.copy_(
                (getattr(attention, name).weight.float() * norm) @ projection * stretch
            )
        own.self_attn.o_proj.weight.copy_(projection.T @ attention.o_proj.weight.float())
        for name in ("q_norm", "k_norm"):
            getattr(own.self_attn, name).weight.copy_(getattr(attention, name).weight)
    final: Any = getattr(getattr(model.base_model, "norm", None), "weight", None)
    if final is not None and final.shape == (width,):
        squares = projection**2
        # A column without a beginning (the draft is wider) would never move if its norm began at zero as well.
        network.model.norm.weight.copy_(torch.where(squares.sum(0) > 0, squares.T @ final.float() * stretch, 1.0))


def _layers_of(model: PreTrainedModel) -> list[Any]:
    layers: Any = getattr(model.base_model, "layers", None)
    return list(layers) if isinstance(layers, nn.ModuleList) else []


def _alike(there: Any, own: Any, width: int) -> bool:
    """Whether a target layer's attention has the parts of the draft's, in the same sizes but for the width."""
    attention, mine = getattr(there, "self_attn", None), own.self_attn
    norm = getattr(getattr(there, "input_layernorm", None), "weight", None)
    if attention is None or norm is None or norm.shape != (width,):
        return False
    for name in ("q_norm", "k_norm"):
        weight = getattr(getattr(attention, name, None), "weight", None)
        if weight is None or weight.shape != getattr(mine, name).weight.shape:
            return False
    for name, place in (("q_proj", 0), ("k_proj", 0), ("v_proj", 0), ("o_proj", 1)):
        part = getattr(attention, name, None)
        if not isinstance(part, nn.Linear) or getattr(part, "bias", None) is not None:
            return False
        size = getattr(mine, name).weight.shape[place]
        if part.weight.shape != ((size, width) if place == 0 else (width, size)):
            return False
    return True
