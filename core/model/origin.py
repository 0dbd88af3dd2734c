"""What the experts of an upcycled model were cloned from; it travels with the model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

import torch

from ...registry.errors import ConfigError, StoreError
from .parameters import expert_parameters, layer_of

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_GATE_UP, _DOWN = "gate_up", "down"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Origin:
    """The common ancestor of the experts of every routed layer: ``gate_up`` (2I, H) and ``down`` (H, I) by layer.

    A diversity loss centres on it, because raw cosines of experts with a common ancestor stay near 1 (SPEC 2A.5).
    ``facts`` are JSON data on the cloning: experts, breaker, strength, perplexities.
    """

    gate_up: Mapping[int, torch.Tensor]
    down: Mapping[int, torch.Tensor]
    facts: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, model: PreTrainedModel, facts: Mapping[str, Any] | None = None) -> Self:
        """The origin of a model whose experts are clones. Raises ``ConfigError`` for one whose experts differ already,
        and for one without experts."""
        found: dict[str, dict[int, torch.Tensor]] = {_GATE_UP: {}, _DOWN: {}}
        for name in expert_parameters(model):
            weight = model.get_parameter(name).detach()
            if not torch.equal(weight, weight[:1].expand_as(weight)):
                raise ConfigError(
                    f"The experts in {name} are no clones of each other, so they have no origin; take it right after "
                    "cloning, before the symmetry is broken."
                )
            found[name.rpartition(".")[2].removesuffix("_proj")][layer_of(name)] = weight[0].cpu().clone()
        if not found[_DOWN]:
            raise ConfigError(f"{type(model).__name__} has no experts, so they have no origin; upcycle it first.")
        return cls(gate_up=found[_GATE_UP], down=found[_DOWN], facts=facts or {})

    def centre(self, layer: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Gate and up (2I, H) and down (H, I) that the experts of a layer were cloned from."""
        if layer not in self.down:
            raise ConfigError(
                f"The experts of layer {layer} have no origin; it is known of the layers "
                f"{', '.join(map(str, sorted(self.down)))}."
            )
        return self.gate_up[layer], self.down[layer]

    def save(self) -> tuple[Mapping[str, Any], Mapping[str, torch.Tensor]]:
        """Facts, and tensors ``layers.{l}.gate_up`` and ``layers.{l}.down``."""
        tensors = {
            f"layers.{layer}.{name}": weight
            for name, weights in ((_GATE_UP, self.gate_up), (_DOWN, self.down))
            for layer, weight in weights.items()
        }
        return {"made": dict(self.facts)}, tensors

    @classmethod
    def restore(
        cls, facts: Mapping[str, Any], tensors: Mapping[str, torch.Tensor], model: PreTrainedModel, registry: Any
    ) -> Self:
        """The origin that was saved. Raises ``StoreError`` unless it has the shape of the experts of ``model``."""
        found: dict[str, dict[int, torch.Tensor]] = {_GATE_UP: {}, _DOWN: {}}
        for key, weight in tensors.items():
            found[key.rpartition(".")[2]][layer_of(key)] = weight
        for name in expert_parameters(model):
            kind, shape = name.rpartition(".")[2].removesuffix("_proj"), model.get_parameter(name).shape[1:]
            origin = found.get(kind, {}).get(layer_of(name))
            if origin is None or origin.shape != shape:
                raise StoreError(
                    f"The origin of the experts has nothing of shape {tuple(shape)} for {name}; it belongs to another "
                    "model, so copy the whole folder again."
                )
        return cls(gate_up=found[_GATE_UP], down=found[_DOWN], facts=facts["made"])
