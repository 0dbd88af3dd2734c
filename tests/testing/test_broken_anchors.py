"""Anchors with one thing wrong each, caught by the check that is named beside it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
from phasegate.core.model.anchors import Material
from phasegate.plugins.anchors.half_space import HalfSpace
from phasegate.registry.components import AnchorSpec


class Different(HalfSpace):
    """Learns another direction every time."""

    captures = 0

    def capture(self, model: Any, material: Material) -> None:
        super().capture(model, material)
        Different.captures += 1
        self._direction = self._direction * Different.captures


class OneForAll(HalfSpace):
    captured = False

    def capture(self, model: Any, material: Material) -> None:
        super().capture(model, material)
        self.captured = True

    def score(self, hidden: torch.Tensor) -> torch.Tensor:
        return super().score(hidden).mean().reshape(1) if self.captured else super().score(hidden)


class Strict(HalfSpace):
    def capture(self, model: Any, material: Material) -> None:
        super().capture(model, material)
        self._offset -= 1e6


class Restless(HalfSpace):
    def penalty(self, model: Any, turn: int | None = None) -> torch.Tensor:
        return super().penalty(model, turn) + 0.1


class Free(HalfSpace):
    def penalty(self, model: Any, turn: int | None = None) -> torch.Tensor:
        return torch.zeros(())


class Rounded(HalfSpace):
    def save(self) -> tuple[Mapping[str, Any], Mapping[str, torch.Tensor]]:
        facts, tensors = super().save()
        return facts, {**tensors, "direction": tensors["direction"].bfloat16().float()}


class Open(HalfSpace):
    """Lets everything pass until it was captured."""

    def score(self, hidden: torch.Tensor) -> torch.Tensor:
        return super().score(hidden) if len(self._direction) else -torch.ones(hidden.shape[:-1])


BROKEN = {
    "capture": (Different, "other tensors"),
    "score": (OneForAll, "shape (1,)"),
    "false-positives": (Strict, "100% are vetoed"),
    "zero-at-capture": (Restless, "penalty is 0.1"),
    "positive-after-perturbation": (Free, "penalty is 0"),
    "saved": (Rounded, "other scores"),
    "fails-closed": (Open, "Never captured"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_anchor_is_caught(name: str, failure: Callable[..., str], spec_of: Callable[..., Any]) -> None:
    target, said = BROKEN[name]
    assert said in failure(spec_of(AnchorSpec, target), name)


def test_every_check_of_anchors_catches_something(names: Callable[[str], set[str]]) -> None:
    assert set(BROKEN) == names("anchor")
