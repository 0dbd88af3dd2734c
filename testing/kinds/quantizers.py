"""What a quantizer promises: values that agree with their codes, and nothing else touched."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import torch

from ...core.model.loading import load_model, save_model
from ...core.model.parameters import expert_parameters
from ...core.model.quantization import bake, quantization_of
from ..check import Subject
from ..tiny import logits_of, own_ref, tiny_model, tiny_tokenizer, tokens

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def weights_of(scale: float = 0.1) -> torch.Tensor:
    """Stacked weights, shape (E, R, C), with a row and an expert of zeros and one expert of large ones."""
    found = scale * torch.randn(4, 6, 32, generator=torch.Generator().manual_seed(0))
    found[0, 2] = 0.0
    found[1] = 0.0
    found[2] *= 30.0
    return found


def model_of(subject: Subject, *, quantized: bool = True) -> PreTrainedModel:
    return tiny_model(subject, quantizer=own_ref(subject) if quantized else None)


def shapes(subject: Subject) -> None:
    """Quantized weights have the shape and dtype of the latent ones, which stay as they are, and are finite."""
    quantizer = subject.build()
    for dtype in (torch.float32, torch.bfloat16):
        weight = weights_of().to(dtype)
        before = weight.clone()
        found = quantizer.quantize(weight)
        assert found.shape == weight.shape and found.dtype == dtype, f"{dtype} gave {found.dtype} {tuple(found.shape)}."
        assert torch.equal(weight, before), "The latent weights were changed."
        assert bool(found.isfinite().all()), "Finite weights gave values that are not; zeros are the usual cause."


def idempotent(subject: Subject) -> None:
    """Quantizing what was quantized changes nothing."""
    quantizer = subject.build()
    for scale in (0.02, 1.0):
        once = quantizer.quantize(weights_of(scale))
        twice = quantizer.quantize(once)
        assert torch.equal(once, twice), f"A second time moves values by up to {float((twice - once).abs().max()):.3g}."


def codes(subject: Subject) -> None:
    """``encode`` and ``quantize`` agree bit for bit: trits in {-1, 0, 1} and fp16 scales decode to the values used."""
    quantizer = subject.build()
    for dtype in (torch.float32, torch.bfloat16):
        weight = weights_of().to(dtype)
        encoded = quantizer.encode(weight)
        assert encoded.trits.dtype == torch.int8 and int(encoded.trits.abs().max()) <= 1, "Its trits are none."
        assert encoded.scales.dtype == torch.float16, f"Its scales are {encoded.scales.dtype}."
        assert torch.equal(encoded.decode(dtype), quantizer.quantize(weight)), f"In {dtype} its codes say other values."


def error(subject: Subject) -> None:
    """The squared error of random weights lies above 0 and below that of dropping them, as ``rounding`` states it."""
    model = model_of(subject)
    quantization = quantization_of(model)
    assert quantization is not None, "The model was built without it."
    stated = quantization.rounding()
    assert 0.0 < stated.error < 1.0, f"The error is {stated.error:.3g} of the square of the weights."
    assert 0.0 <= stated.zeros <= 1.0, f"The share of zeros is {stated.zeros:.3g}."


def takes_effect(subject: Subject) -> None:
    """The forward pass uses the quantized experts: the logits are those of a model whose experts hold these values."""
    model, ids = model_of(subject), tokens(2, 12)
    quantized = logits_of(model, ids)
    assert not torch.equal(quantized, logits_of(model_of(subject, quantized=False), ids)), "The logits stay the same."
    bake(model)
    torch.testing.assert_close(logits_of(model, ids), quantized, rtol=1e-4, atol=1e-5)


def exclusions(subject: Subject) -> None:
    """Only expert weights are quantized; latent weights and everything else keep their bits."""
    plain, model = model_of(subject, quantized=False), model_of(subject)
    before = plain.state_dict()
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name]), f"{name} is another with the quantizer on."
    bake(model)
    experts = set(expert_parameters(model))
    for name, tensor in model.state_dict().items():
        assert name in experts or torch.equal(tensor, before[name]), f"{name} was quantized, and is no expert."


def gradient(subject: Subject) -> None:
    """Gradients pass it by: latent experts get the gradient that the values in use would get."""
    found = []
    for baked in (False, True):
        model, ids = model_of(subject).train(), tokens(2, 12)
        if baked:
            bake(model)
        model(input_ids=ids, labels=ids, use_cache=False).loss.backward()
        found.append({name: model.get_parameter(name).grad for name in expert_parameters(model)})
    latent, used = found
    for name, wanted in used.items():
        assert latent[name] is not None, f"No gradient reaches {name}."
        torch.testing.assert_close(latent[name], wanted, rtol=1e-3, atol=1e-6)


def determinism(subject: Subject) -> None:
    """It keeps no state: equal weights give equal values, whatever it quantized before."""
    quantizer = subject.build()
    first = quantizer.quantize(weights_of())
    quantizer.quantize(weights_of(5.0))
    assert torch.equal(quantizer.quantize(weights_of()), first), "The same weights gave other values the second time."
    assert torch.equal(subject.build().quantize(weights_of()), first), "Another of its kind gave other values."


def saved(subject: Subject) -> None:
    """A saved model has the quantizer on and the same logits when it is loaded."""
    model, ids = model_of(subject), tokens(2, 12)
    with TemporaryDirectory() as folder:
        save_model(model, tiny_tokenizer(), folder)
        again: Any = load_model(Path(folder), subject.registry)
        assert quantization_of(again) is not None, "The loaded model has no quantizer."
        assert torch.equal(logits_of(again, ids), logits_of(model, ids)), "The loaded model has other logits."


CHECKS: tuple[Callable[[Subject], None], ...] = (
    shapes,
    idempotent,
    codes,
    error,
    takes_effect,
    exclusions,
    gradient,
    determinism,
    saved,
)
