"""The tiny model, tokens and text that components are tried on."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from functools import cache
from typing import TYPE_CHECKING, Any

import torch

from ..core.config.schema import Ref
from ..core.model.builder import ModelContext

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

    from .check import Example, Subject

SIZES: Mapping[str, Any] = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "head_dim": 8,
    "moe_intermediate_size": 8,
    "num_experts": 8,
    "num_experts_per_tok": 2,
    "initializer_range": 0.2,
}
VOCABULARY = 64
LENGTH = 32
DOMAINS = ("general", "code", "science")


def ref_of(written: Mapping[str, Any] | str) -> Ref:
    """A component as an experiment writes it: a name, or a mapping with ``use`` and the options."""
    if isinstance(written, str):
        return Ref(use=written)
    return Ref(use=written["use"], options={key: value for key, value in written.items() if key != "use"})


def model_context(
    subject: Subject, *, mixer: Ref | None = None, quantizer: Ref | None = None, router: Ref | None = None
) -> ModelContext:
    """Where a model is built: tiny sizes, and the example's router."""
    return ModelContext(
        registry=subject.registry,
        router=router or ref_of(subject.example.router),
        derived=SIZES,
        vocab_size=VOCABULARY,
        sequence_length=LENGTH,
        mixer=mixer,
        quantizer=quantizer,
    )


def own_ref(subject: Subject) -> Ref:
    """The component on trial, as part of a model."""
    return Ref(use=subject.entry.ref, options=subject.options)


def tiny_model(
    subject: Subject,
    *,
    seed: int = 0,
    mixer: Ref | None = None,
    quantizer: Ref | None = None,
    router: Ref | None = None,
) -> PreTrainedModel:
    """The platform's own MoE of two layers, eight experts and top-2, with the example's ``model`` options."""
    context = model_context(subject, mixer=mixer, quantizer=quantizer, router=router)
    builder = subject.registry.build("model", "phasegate:moe", subject.example.model, context=context)
    model: PreTrainedModel = builder.build(seed)
    return model


def tokens(rows: int, length: int, *, seed: int = 0, vocabulary: int = VOCABULARY) -> torch.Tensor:
    """Token ids, shape (rows, length), none of them special."""
    return torch.randint(6, vocabulary, (rows, length), generator=torch.Generator().manual_seed(seed))


def logits_of(model: PreTrainedModel, ids: torch.Tensor, **inputs: Any) -> torch.Tensor:
    """The logits of a model in evaluation, without gradient, shape (B, T, V)."""
    with torch.no_grad():
        found: torch.Tensor = model.eval()(input_ids=ids, use_cache=False, **inputs).logits
    return found


def weights_digest(module: torch.nn.Module) -> str:
    """SHA-256 over all parameters and buffers by name."""
    whole = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        data = tensor.detach().cpu().contiguous()
        whole.update(f"{name} {tuple(data.shape)} {data.dtype}\n".encode())
        whole.update(data.reshape(-1).view(torch.uint8).numpy().tobytes())
    return whole.hexdigest()


@cache
def tiny_tokenizer() -> PreTrainedTokenizerFast:
    """The smallest tokenizer: bytes and the special tokens."""
    from ..core.model.tokenizer import train_tokenizer

    return train_tokenizer(["the cat sat on the mat", "the dog ate 12 bones"] * 20, vocab_size=280)


def prepared(model: PreTrainedModel, example: Example) -> PreTrainedModel:
    """The model after the example's own preparation."""
    prepare: Callable[[Any], None] | None = example.prepare
    if prepare is not None:
        prepare(model)
    return model
