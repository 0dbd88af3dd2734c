"""Quantizers with one thing wrong each, caught by the check that is named beside it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from phasegate.core.model.quantizer import Codes
from phasegate.plugins.quantizers.options import TernaryConfig
from phasegate.plugins.quantizers.ternary import Ternary
from phasegate.registry.components import QuantizerSpec


class Sound(Ternary):
    """The built-in one, without options."""

    def __init__(self) -> None:
        super().__init__(TernaryConfig())


class InPlace(Sound):
    def quantize(self, weight: torch.Tensor) -> torch.Tensor:
        weight.copy_(super().quantize(weight))
        return weight


class Shrinking(Sound):
    def encode(self, weight: torch.Tensor) -> Codes:
        codes = super().encode(weight)
        return Codes(trits=codes.trits, scales=codes.scales * 0.5)


class TwoMinds(Sound):
    def quantize(self, weight: torch.Tensor) -> torch.Tensor:
        return super().quantize(weight) * 1.001


class AllZeros(Sound):
    def encode(self, weight: torch.Tensor) -> Codes:
        codes = super().encode(weight)
        return Codes(trits=codes.trits * 0, scales=codes.scales)


class Nothing(Sound):
    def quantize(self, weight: torch.Tensor) -> torch.Tensor:
        return weight.detach().clone()


class Remembering(Sound):
    calls = 0

    def quantize(self, weight: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        return super().quantize(weight) * self.calls


class Lost(Sound):
    built = 0

    def __init__(self) -> None:
        super().__init__()
        Lost.built += 1
        self.scale = 1.0 + Lost.built

    def encode(self, weight: torch.Tensor) -> Codes:
        codes = super().encode(weight)
        return Codes(trits=codes.trits, scales=codes.scales * self.scale)


BROKEN = {
    "shapes": (InPlace, "were changed"),
    "idempotent": (Shrinking, "second time"),
    "codes": (TwoMinds, "other values"),
    "error": (AllZeros, "error is 1"),
    "takes-effect": (Nothing, "stay the same"),
    "determinism": (Remembering, "second time"),
    "saved": (Lost, "other logits"),
    "gradient": (TwoMinds, ""),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_quantizer_is_caught(name: str, failure: Callable[..., str], spec_of: Callable[..., Any]) -> None:
    target, said = BROKEN[name]
    assert said in failure(spec_of(QuantizerSpec, target), name)


def test_a_platform_that_quantized_more_than_experts_would_be_caught(
    failure: Callable[..., str], spec_of: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    from phasegate.core.model.quantization import bake
    from phasegate.testing.kinds import quantizers

    def greedy(model: Any) -> None:
        bake(model)
        with torch.no_grad():
            model.lm_head.weight.mul_(0.5)

    monkeypatch.setattr(quantizers, "bake", greedy)
    assert "is no expert" in failure(spec_of(QuantizerSpec, Sound), "exclusions")


def test_every_check_of_quantizers_catches_something(names: Callable[[str], set[str]]) -> None:
    assert {*BROKEN, "exclusions"} == names("quantizer")
