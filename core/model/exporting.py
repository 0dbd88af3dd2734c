"""Exports: a folder that plain transformers reads, as a stock Qwen3-MoE wherever the router allows it."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from transformers import Qwen3MoeConfig, Qwen3MoeForCausalLM

from ...registry.errors import StoreError
from .companions import attach, companions_of, hand_over
from .configuration import PhasegateMoeConfig
from .guarded import GUARDED
from .loading import load_model, save_model
from .modeling import PhasegateMoeForCausalLM
from .parameters import routers_of
from .quantization import bake
from .router import RouterBase
from .tokenizer import load_tokenizer

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_OURS = frozenset(
    {
        "architectures",
        "layer_types",
        "mixer",
        "mixer_layers",
        "mixer_options",
        "model_type",
        "norm_topk_prob",
        "router",
        "router_options",
        "shared_ffn",
        "sparse_layers",
        "transformers_version",
    }
)
_ATTENTION = "phasegate:attention"  # the library's, as it is
_BIAS = ".gate.selection_bias"


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportReport:
    """What an export wrote. ``needs_import`` is the module to import before ``from_pretrained``, None where plain
    transformers suffices; ``reason`` says why, in one sentence. ``guarded`` says that the model has a safety anchor, so
    that only ``phasegate.load`` reads it; ``dropped`` that its anchor was left out."""

    folder: Path
    model_type: str
    needs_import: str | None
    reason: str
    guarded: bool = False
    dropped: bool = False


def export_model(
    folder_in: str | os.PathLike[str], folder_out: str | os.PathLike[str], registry: Any, *, drop_anchor: bool = False
) -> ExportReport:
    """Write the model and tokenizer of ``folder_in`` to the new folder ``folder_out`` for use without phasegate.

    A model whose routers compute what a stock router computes becomes a stock Qwen3-MoE; any other keeps its own
    model type, and the report says what it then needs. What travels with the model goes along. A model with a safety
    anchor becomes a folder that only ``phasegate.load`` reads, unless ``drop_anchor`` leaves the anchor out.
    Raises ``StoreError`` when the input cannot be read or ``folder_out`` exists and is not empty; nothing half-written
    stays behind.
    """
    target = Path(folder_out)
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise StoreError(f"'{target}' already exists and is not an empty folder; export to a new one.")
    model = load_model(folder_in, registry)
    tokenizer = load_tokenizer(folder_in)
    attach(model, "origin", None)  # for training alone, and as large as an expert
    dropped = drop_anchor and "anchor" in companions_of(model)
    if dropped:
        attach(model, "anchor", None)
    guarded = "anchor" in companions_of(model)
    baked = bake(model)
    model, needs_import, reason = _portable(model)
    if baked:
        reason = (
            f"{reason}; its experts hold the quantized values that they computed with, and are not quantized any more"
        )
    partial = target.with_name(f".{target.name}.partial-{os.getpid()}")
    partial.mkdir(parents=True)
    try:
        save_model(model, tokenizer, partial, guarded=guarded)
        if target.exists():
            target.rmdir()
        partial.rename(target)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return ExportReport(
        folder=target,
        model_type=GUARDED if guarded else model.config.model_type,
        needs_import=None if guarded else needs_import,
        reason="the model has a safety anchor, which only phasegate.load puts in place" if guarded else reason,
        guarded=guarded,
        dropped=dropped,
    )


def _portable(model: PreTrainedModel) -> tuple[PreTrainedModel, str | None, str]:
    if not isinstance(model, PhasegateMoeForCausalLM):
        return model, None, f"{model.config.model_type} is a family of transformers"
    routers = [module for _, _, module in routers_of(model) if isinstance(module, RouterBase)]
    forms = {router.stock_normalisation() for router in routers}
    obstacle = None
    if any(bool(router.selection_bias.any()) for router in routers):
        obstacle = "its routers select with a bias, which no stock router has"
    elif _mixes(model.config) or model.config.shared_ffn is not None:
        obstacle = "its layers mix tokens or share FFNs as no Qwen3-MoE does"
    elif len(forms) != 1 or None in forms:
        obstacle = f"no stock router computes what '{model.config.router}' with {model.config.router_options} computes"
    if obstacle is not None:
        return model, modeling_name(), f"kept its own model type, because {obstacle}"
    return _as_qwen3(model, bool(forms.pop())), None, "the routers compute what Qwen3-MoE's routers compute"


def _mixes(config: PhasegateMoeConfig) -> bool:
    """Whether a layer mixes tokens in another way than by attention to all before, whatever its cache is."""
    return set(config.types) != {"full_attention"} or bool(config.mixer_layers and config.mixer != _ATTENTION)


def _as_qwen3(model: PhasegateMoeForCausalLM, normalised: bool) -> Qwen3MoeForCausalLM:
    """The same weights in a stock model; good for saving only (its rotary buffers are never allocated)."""
    fields = {key: value for key, value in model.config.to_dict().items() if key not in _OURS}
    with torch.device("meta"):
        stock = Qwen3MoeForCausalLM(Qwen3MoeConfig(**fields, norm_topk_prob=normalised))
    weights = {key: value for key, value in model.state_dict().items() if not key.endswith(_BIAS)}
    stock.load_state_dict(weights, strict=True, assign=True)
    stock.tie_weights()
    stock.generation_config = model.generation_config
    hand_over(model, stock)
    return stock


def modeling_name() -> str:
    """The module whose import registers our model type with transformers."""
    return PhasegateMoeForCausalLM.__module__
