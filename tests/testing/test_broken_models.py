"""Model builders with one thing wrong each, caught by the check that is named beside it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from phasegate.core.model.builder import ModelContext, ModelFacts, Positions
from phasegate.plugins.models.moe import MoeBuilder, MoeConfig
from phasegate.registry.components import ModelSpec


class Sound(MoeBuilder):
    """The built-in one, without options."""

    def __init__(self, *, context: ModelContext) -> None:
        super().__init__(MoeConfig(), context=context)


class Half(Sound):
    def build(self, seed: int) -> Any:
        model = super().build(seed)
        model.model.norm.to(torch.bfloat16)
        return model


class Unseeded(Sound):
    def build(self, seed: int) -> Any:
        model = super().build(seed)
        with torch.no_grad():
            model.lm_head.weight.add_(torch.rand(()))
        return model


class Miscounting(Sound):
    def facts(self) -> ModelFacts:
        found = super().facts()
        return replace(found, total=found.total + 1)


class Hiding(Sound):
    """Scales the logits by a number that is not saved."""

    def build(self, seed: int) -> Any:
        model = super().build(seed)
        model.register_forward_hook(self._scale)
        return model

    @staticmethod
    def _scale(module: Any, arguments: Any, output: Any) -> Any:
        output.logits = 2.0 * output.logits
        return output


class Volatile(Sound):
    def build(self, seed: int) -> Any:
        model = super().build(seed)
        kind = type(model.config)

        class Config(kind):  # type: ignore[misc,valid-type]
            def to_dict(self) -> dict[str, Any]:
                return {**super().to_dict(), "note": id(self)}

        model.config.__class__ = Config
        return model


class Boasting(Sound):
    def positions(self) -> Positions:
        return replace(super().positions(), length=9999)


BROKEN = {
    "builds": (Half, "bfloat16"),
    "seed": (Unseeded, "same seed gave another"),
    "counts": (Miscounting, "parameters and builds"),
    "saved": (Hiding, "other logits"),
    "config": (Volatile, "note"),
    "positions": (Boasting, "9999 positions"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_model_is_caught(name: str, failure: Callable[..., str], spec_of: Callable[..., Any]) -> None:
    target, said = BROKEN[name]
    assert said in failure(spec_of(ModelSpec, target), name)


def test_every_check_of_models_catches_something(names: Callable[[str], set[str]]) -> None:
    assert set(BROKEN) == names("model")
