"""Quantized experts: which weights the forward pass uses, while the model keeps and trains its latent ones.

Importing this module registers the experts implementation ``phasegate_quantized`` with transformers.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch import nn
from torch.optim.optimizer import register_optimizer_step_post_hook
from transformers.integrations.moe import ALL_EXPERTS_FUNCTIONS, ExpertsInterface

from ...registry.errors import ConfigError, StoreError
from .companions import companions_of, rebind, trunk_digest
from .parameters import expert_parameters
from .quantizer import Codes, Quantizer

if TYPE_CHECKING:
    from transformers import PreTrainedModel

IMPLEMENTATION = "phasegate_quantized"
FIELD = "phasegate_quantizer"
_PLAIN = "grouped_mm"

Order = Literal["largest", "smallest", "soft"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rounding:
    """What quantizing does to expert weights: ``zeros``, the share of zeros among those quantized (0.0 while none is),
    and ``error``, ||W - W_eff||^2 / ||W||^2 over all of them."""

    zeros: float
    error: float


class Quantization:
    """The quantizer on the stacked expert weights of one model, and how much of them it applies to.

    The forward pass uses W_eff, whose gradient goes to the latent W unchanged (straight-through estimator: Bengio
    2013, 1308.3432). ``share`` of the weights is quantized, at first 1.0: the ``largest`` by |W| of each expert's
    matrix (Zhou 2017, 1702.03044) or the ``smallest``, W_eff = A W_q + (1 - A) W with ``masks`` A that stay until the
    next ``set_share``. ``soft`` blends all of them: W_eff = (1 - share) W + share W_q. W_q is that of the whole latent
    matrix, so that its threshold and scales do not depend on A.

    ``freeze`` zeroes the gradient where A is set and lets A only grow, after Zhou 2017 (at a share of 1.0 no expert
    weight has a gradient); an optimiser's momentum and weight decay still move what is frozen. A ``soft`` blend
    freezes at its end only.
    """

    def __init__(self, quantizer: Quantizer, experts: Mapping[str, nn.Module]) -> None:
        """``experts``: for every stacked parameter's name, the module that has it."""
        self.quantizer = quantizer
        self.order: Order = "largest"
        self.freeze = False
        self.share = 1.0
        self.masks: dict[str, torch.Tensor] = {}
        self._experts = dict(experts)
        self._changes = 0
        self._cache: dict[str, tuple[tuple[int, ...], torch.Tensor]] = {}

    def weights(self) -> Iterator[tuple[str, torch.Tensor]]:
        """The latent weights by parameter name, shape (E, R, C)."""
        for name, module in self._experts.items():
            yield name, getattr(module, name.rpartition(".")[2])

    def start(self, order: Order = "largest", *, freeze: bool = False) -> None:
        """Quantize nothing yet; ``set_share`` then goes in this order."""
        self.order, self.freeze = order, freeze
        self._become(0.0, {})

    @torch.no_grad()
    def set_share(self, share: float) -> None:
        """Quantize this share, in [0, 1], by the weights as they are now."""
        partly = 0.0 < share < 1.0 and self.order != "soft"
        self._become(
            share, {name: self._mask(name, weight, share) for name, weight in self.weights()} if partly else {}
        )

    def effective(self, name: str, weight: torch.Tensor) -> torch.Tensor:
        """W_eff of a latent weight.

        Without gradients it is computed once per change of the weight. A write past torch's count of them (through
        ``.data``) is noticed at the next optimiser step or pass with gradients.
        """
        if self.share == 0.0:
            return weight
        if torch.is_grad_enabled():
            self._cache.pop(name, None)
            value = self._value(name, weight)
            if weight.requires_grad:
                through: Any = _StraightThrough
                value = through.apply(weight, value, self._frozen(name))
            return value
        # Only a parameter keeps its place in memory and counts its changes.
        if not isinstance(weight, nn.Parameter) or weight.is_inference():
            return self._value(name, weight)
        key = (weight.data_ptr(), weight._version, self._changes, _steps.done)
        if name not in self._cache or self._cache[name][0] != key:
            self._cache[name] = (key, self._value(name, weight))
        return self._cache[name][1]

    @torch.no_grad()
    def rounding(self) -> Rounding:
        """Measure the expert weights as they are now."""
        if self.share == 0.0:
            return Rounding(zeros=0.0, error=0.0)
        zeros = count = 0
        error = total = 0.0
        for name, weight in self.weights():
            quantized = self.quantizer.quantize(weight)
            chosen = quantized[self.masks[name].to(weight.device)] if self.masks else quantized
            zeros += int((chosen == 0).sum())
            count += chosen.numel()
            lost = weight.float() - self._mixed(name, weight, quantized).float()
            error += float(lost.square().sum())
            total += float(weight.float().square().sum())
        return Rounding(zeros=zeros / max(1, count), error=error / total if total else 0.0)

    def packed_masks(self) -> dict[str, torch.Tensor]:
        """The masks by parameter name, 8 in a byte (uint8, flat); empty when all or nothing is quantized."""
        return {name: torch.from_numpy(np.packbits(mask.cpu().numpy())) for name, mask in self.masks.items()}

    def restore(self, share: float, packed: Mapping[str, torch.Tensor]) -> None:
        """Go on with a share and the masks of ``packed_masks``, whatever the weights are now.

        Raises ``StoreError`` for masks of other weights.
        """
        partly = 0.0 < share < 1.0 and self.order != "soft"
        weights = dict(self.weights()) if partly else {}
        sizes = {name: -(-weight.numel() // 8) for name, weight in weights.items()}
        if sizes != {name: bits.numel() for name, bits in packed.items()}:
            raise StoreError(
                f"the checkpoint's masks of {len(packed)} quantized weights do not fit this model, which has "
                f"{len(weights)} that are quantized in part; start the step anew"
            )
        self._become(share, {name: _unpacked(packed[name], weight) for name, weight in weights.items()})

    def _become(self, share: float, masks: dict[str, torch.Tensor]) -> None:
        self.share, self.masks = share, masks
        self._changes += 1
        self._cache.clear()

    def _mask(self, name: str, weight: torch.Tensor, share: float) -> torch.Tensor:
        magnitude = weight.abs().flatten(1)  # shape: (E, R * C)
        largest = self.order == "largest"
        if self.freeze and name in self.masks:
            magnitude.masked_fill_(self.masks[name].to(weight.device).flatten(1), torch.inf if largest else -1.0)
        index = magnitude.topk(round(share * magnitude.shape[1]), dim=1, largest=largest, sorted=False).indices
        return torch.zeros_like(magnitude, dtype=torch.bool).scatter_(1, index, True).view(weight.shape)

    @torch.no_grad()
    def _value(self, name: str, weight: torch.Tensor) -> torch.Tensor:
        return self._mixed(name, weight, self.quantizer.quantize(weight))

    def _mixed(self, name: str, weight: torch.Tensor, quantized: torch.Tensor) -> torch.Tensor:
        if self.share == 1.0:
            return quantized
        if self.order == "soft":
            return torch.lerp(weight, quantized, self.share)
        self.masks[name] = self.masks[name].to(weight.device)
        return torch.where(self.masks[name], quantized, weight)

    def _frozen(self, name: str) -> torch.Tensor | bool:
        return self.freeze and self.masks.get(name, self.share == 1.0)


def quantize_experts(
    model: PreTrainedModel, use: str, options: Mapping[str, Any], quantizer: Quantizer
) -> Quantization:
    """Put a quantizer on every expert weight of a model, all of it at once, and record it in the configuration.

    The state dict stays that of the latent weights. ``use`` and ``options`` (JSON) name the component for
    ``restore_quantizer``. Raises ``ConfigError`` for a model without stacked experts or whose experts cannot be run in
    another way.
    """
    names = [name for name in expert_parameters(model) if model.get_parameter(name).ndim == 3]
    if not names:
        raise ConfigError(
            f"{type(model).__name__} has no stacked experts for the quantizer '{use}' to act on; upcycle the model to "
            "a mixture of experts first, or remove the quantizer."
        )
    model.set_experts_implementation(IMPLEMENTATION)
    if model.get_experts_implementation()[""] != IMPLEMENTATION:
        raise ConfigError(
            f"transformers does not let the experts of {type(model).__name__} run in another way, so the quantizer "
            f"'{use}' cannot act on them; use the families mixtral, olmoe, phasegate_moe or qwen3_moe."
        )
    quantization = Quantization(quantizer, {name: model.get_submodule(name.rpartition(".")[0]) for name in names})
    for name in names:
        module: Any = model.get_submodule(name.rpartition(".")[0])
        module.quantization = quantization
        module.quantized_names = {**getattr(module, "quantized_names", {}), name.rpartition(".")[2]: name}
    setattr(model.config, FIELD, {"use": use, "options": dict(options)})
    return quantization


def quantization_of(model: nn.Module) -> Quantization | None:
    """The quantization of a model's experts, or None."""
    for module in _experts_of(model):
        found = getattr(module, "quantization", None)
        if isinstance(found, Quantization):
            return found
    return None


def unquantize(model: PreTrainedModel) -> None:
    """Take the quantizer off: the forward pass uses the latent weights, as the library does."""
    if quantization_of(model) is None:
        return
    for module in _experts_of(model):
        del module.quantization, module.quantized_names
    model.set_experts_implementation(_PLAIN)
    setattr(model.config, FIELD, None)


@torch.no_grad()
def bake(model: PreTrainedModel) -> bool:
    """Let the expert weights be what the forward pass made of them, and take the quantizer off: the model computes the
    same without it, and what was fitted to it still belongs to it. False for a model without a quantizer."""
    if quantization_of(model) is None:
        return False
    before = trunk_digest(model) if companions_of(model) else None
    for name, codes in encode_experts(model).items():
        weight = model.get_parameter(name)
        weight.copy_(codes.decode(weight.dtype))
    unquantize(model)
    rebind(model, before)
    return True


def restore_quantizer(model: PreTrainedModel, registry: Any) -> Quantization | None:
    """Put on the quantizer that a model's configuration names, if any; it stays as it is where there is one."""
    record = getattr(model.config, FIELD, None)
    found = quantization_of(model)
    if record is None or found is not None:
        return found
    quantizer = registry.build("quantizer", record["use"], record["options"])
    return quantize_experts(model, record["use"], record["options"], quantizer)


def encode_experts(model: nn.Module) -> Mapping[str, Codes]:
    """The expert weights as codes by parameter name, all of them, whatever share the forward pass quantizes.

    Raises ``ConfigError`` for a model without a quantizer.
    """
    quantization = quantization_of(model)
    if quantization is None:
        raise ConfigError(
            f"the experts of this {type(model).__name__} are not quantized, so there are no codes of them; train a "
            "step with a quantizer first."
        )
    return {name: quantization.quantizer.encode(weight.detach()) for name, weight in quantization.weights()}


class _Steps:
    """Counts optimiser steps of this process: fused ones do not raise a tensor's version."""

    def __init__(self) -> None:
        self.done = 0
        register_optimizer_step_post_hook(self._count)

    def _count(self, *_: Any) -> None:
        self.done += 1


_steps = _Steps()


def _experts_of(model: nn.Module) -> list[nn.Module]:
    return [model.get_submodule(path) for path in sorted({n.rpartition(".")[0] for n in expert_parameters(model)})]


def _unpacked(packed: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    bits = np.unpackbits(packed.cpu().numpy(), count=weight.numel())
    return torch.from_numpy(bits).to(weight.device, torch.bool).view(weight.shape)


class _StraightThrough(torch.autograd.Function):
    """The given value, with the gradient of the latent weight; zero where frozen."""

    @staticmethod
    def forward(ctx: Any, weight: torch.Tensor, value: torch.Tensor, frozen: torch.Tensor | bool) -> torch.Tensor:
        ctx.frozen = frozen
        return value

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        (gradient,) = gradients
        if ctx.frozen is not False:
            gradient = gradient.masked_fill(torch.as_tensor(ctx.frozen, device=gradient.device), 0.0)
        return gradient, None, None


class _View:
    """Read-only stand-in for an experts module with other weights; everything else is the module's own."""

    def __init__(self, module: nn.Module, weights: Mapping[str, torch.Tensor]) -> None:
        self.__dict__.update(weights, _module=module)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__["_module"], name)


def _forward(
    module: Any, hidden_states: torch.Tensor, top_k_index: torch.Tensor, top_k_weights: torch.Tensor
) -> torch.Tensor:
    experts, quantization = module, getattr(module, "quantization", None)
    if quantization is not None:
        names = module.quantized_names.items()
        experts = _View(module, {key: quantization.effective(name, getattr(module, key)) for key, name in names})
    forward = ALL_EXPERTS_FUNCTIONS[_PLAIN]
    output: torch.Tensor = forward(experts, hidden_states, top_k_index, top_k_weights)  # shape: (N, H)
    return output


ExpertsInterface.register(IMPLEMENTATION, _forward)
