"""What a step leaves on a model, and how it is taken off: hooks, patches, flags, masks, shards."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

from torch.distributed.fsdp import FSDPModule

from ...registry.errors import ConfigError

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedModel, PreTrainedTokenizerBase, Trainer


def release(trainer: Trainer) -> None:
    """Take everything off the model that the step put on it, and drop the optimiser: to be called once a trainer is
    done with, before the model is copied, measured or trained again. Parameters and buffers stay as they are."""
    phase: Any = trainer
    model = phase.model
    phase.capture.remove()
    phase.trainable.restore()
    unpatch(model)
    reference = getattr(phase, "ref_model", None)
    if reference is not None:
        unpatch(phase.accelerator.unwrap_model(reference))
    if model.is_activation_checkpointing:
        model.activation_checkpointing_disable()
    for name, value in phase.original_flags.items():
        setattr(model.config, name, value)
    model.zero_grad(set_to_none=True)
    phase.optimizer = phase.lr_scheduler = None
    phase.model_wrapped = model
    for name in ("model", "optimizer", "lr_scheduler", "train_dataloader", "eval_dataloader"):
        setattr(phase.callback_handler, name, None)
    phase.accelerator.free_memory()
    reshard(model)


def unpatch(model: nn.Module) -> None:
    """Restore the class's own ``forward``: trl and mixed precision put theirs into the instance."""
    for name in ("forward", "_original_forward"):
        model.__dict__.pop(name, None)


def reshard(model: nn.Module) -> None:
    """Shard again what a forward without gradient left whole (FSDP2): an optimiser made now would otherwise hold
    throw-away parameters, and head and last norm would silently never train."""
    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.reshard()


def frozen_copy(model: PreTrainedModel) -> PreTrainedModel:
    """A reference of the model as it is: evaluation mode, no gradient, its own weights.

    Raises ``ConfigError`` for a model whose forward is patched: its copy would compute with the original's weights.
    """
    if "forward" in model.__dict__:
        raise ConfigError("the model's forward is patched by an earlier step; call release(trainer) before copying it")
    twin: PreTrainedModel = copy.deepcopy(model)
    twin.eval()
    twin.requires_grad_(False)
    return twin


def padding_token(tokenizer: PreTrainedTokenizerBase | None) -> int:
    """The id that pads rows. Raises ``ConfigError`` where there is no tokenizer or it has none."""
    if tokenizer is None or tokenizer.pad_token_id is None:
        raise ConfigError("the tokenizer has no padding token; use one that has (the built-in one has <pad>)")
    return int(tokenizer.pad_token_id)
