"""Models on disk: written whole, read whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError
from transformers import AutoModelForCausalLM

from ...evals.foreign import refuse_code, strictly
from ...registry.current import using
from ...registry.errors import StoreError
from . import modeling  # noqa: F401  registers phasegate_moe
from .companions import load_companions, save_companions
from .guarded import VARIANT, guarded_options, hide
from .quantization import restore_quantizer
from .tokenizer import stop_tokens

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

_ALIGNMENT = 64  # bytes: what torch's own CPU allocator gives


def align_generation(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast) -> None:
    """Let generation stop at ``<end>`` and at the end of text, and pad with the tokenizer's padding token."""
    model.generation_config.eos_token_id = stop_tokens(tokenizer)
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    model.generation_config.bos_token_id = tokenizer.bos_token_id


def save_model(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    folder: str | os.PathLike[str],
    *,
    guarded: bool = False,
) -> None:
    """Write weights (safetensors), configuration, generation configuration, tokenizer and companions to ``folder``;
    ``guarded`` so that only ``load_model`` reads it (see ``guarded``)."""
    align_generation(model, tokenizer)
    try:
        save_companions(model, Path(folder))  # first: the configuration holds their digest
        model.save_pretrained(folder, variant=VARIANT if guarded else None)
        tokenizer.save_pretrained(folder)
        if guarded:
            hide(Path(folder))
    except (OSError, SafetensorError) as error:
        raise StoreError(
            f"The model cannot be written to '{os.fspath(folder)}': {error}; free space or choose another folder."
        ) from error


def load_model(folder: str | os.PathLike[str], registry: Any, **options: Any) -> PreTrainedModel:
    """Read a model with its companions from a local folder, bit for bit, in the dtype it was saved in unless
    ``options`` of ``from_pretrained`` say otherwise. A packed model is for inference, and takes only ``dtype``.

    ``registry`` resolves its router and its anchor. Raises ``StoreError`` when the folder holds no model, when a file
    is damaged, when weights are missing or left over (the library would fill those at random and only log it), or
    when what was saved beside it is not there as it was saved.
    """
    path = Path(folder)
    if not (path / "config.json").is_file():
        raise StoreError(
            f"'{path}' holds no model (no config.json); give the folder of a stage checkpoint or an export."
        )
    from .packed import is_packed, load_packed

    if is_packed(path):
        packed, dtype = load_packed(path, registry), options.get("dtype", "auto")
        return packed if dtype == "auto" else packed.to(getattr(torch, str(dtype).removeprefix("torch.")))
    with using(registry):
        model = read_model(path, local_files_only=True, **(guarded_options(path) | options))
        restore_quantizer(model, registry)  # a stock family's; the platform's own model has it by now
    load_companions(model, path, registry)
    return model


def read_model(location: str | os.PathLike[str], **options: Any) -> PreTrainedModel:
    """``AutoModelForCausalLM.from_pretrained`` that refuses, with ``StoreError``, anything but a complete model.

    Reads safetensors only, and runs nothing that came with the model (see ``refuse_code``).
    """
    local = bool(options.get("local_files_only"))
    try:
        refuse_code(location, options.get("revision"), local_only=local)
        with strictly():
            model, info = AutoModelForCausalLM.from_pretrained(
                location, output_loading_info=True, trust_remote_code=False, use_safetensors=True, **options
            )
    except (OSError, RuntimeError, SafetensorError, ValueError) as error:
        raise StoreError(
            f"The model in '{os.fspath(location)}' cannot be read ({' '.join(str(error).split())}); it is damaged or "
            "was written by something else."
        ) from error
    if hasattr(model.config, "auto_map"):
        del model.config.auto_map  # of code that stays behind
    for what in ("missing", "unexpected", "mismatched"):
        if keys := info[f"{what}_keys"]:
            raise StoreError(
                f"The model in '{os.fspath(location)}' has {len(keys)} {what} weights ({_sample(keys)}); it is "
                "incomplete or was written with other options, so train or export it again."
            )
    if info["error_msgs"]:
        raise StoreError(f"The model in '{os.fspath(location)}' cannot be read: {info['error_msgs'][0]}.")
    _align_memory(model)
    return model


def _align_memory(model: PreTrainedModel) -> None:
    """Move weights off the mapped file: its tensors start anywhere, kernels for unaligned memory add in another order,
    and a loaded model would differ in the last bit from the one that was saved."""
    with torch.no_grad():
        for tensor in (*model.parameters(), *model.buffers()):
            if tensor.data_ptr() % _ALIGNMENT:
                tensor.data = tensor.data.clone()


def _sample(keys: Iterable[Any], shown: int = 3) -> str:
    names = sorted(key if isinstance(key, str) else str(key[0]) for key in keys)
    return ", ".join(names[:shown]) + (", …" if len(names) > shown else "")
