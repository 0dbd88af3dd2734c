"""Mixers with one thing wrong each, caught by the check that is named beside it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from phasegate.core.model.mixer import MixerBase, MixerContext
from phasegate.registry.components import MixerSpec
from torch import nn
from transformers import initialization as init


class Around(MixerBase):
    """The library's attention inside a mixer of its own."""

    def __init__(self, *, context: MixerContext) -> None:
        super().__init__()
        self.inner = context.attention

    def forward(self, hidden_states: torch.Tensor, *arguments: Any, **named: Any) -> Any:
        return self.inner(hidden_states, *arguments, **named)[0], None

    def init_weights(self, std: float) -> None:
        """The library's attention is initialised by the model."""


class Alone(Around):
    def forward(self, hidden_states: torch.Tensor, *arguments: Any, **named: Any) -> Any:
        return super().forward(hidden_states, *arguments, **named)[0]


class Peeking(Around):
    def forward(self, hidden_states: torch.Tensor, *arguments: Any, **named: Any) -> Any:
        mixed, _ = super().forward(hidden_states, *arguments, **named)
        return mixed + hidden_states.flip(1), None


class Blind(MixerBase):
    """A map of every token by itself."""

    def __init__(self, *, context: MixerContext) -> None:
        super().__init__()
        self.map = nn.Linear(context.config.hidden_size, context.config.hidden_size)

    def forward(self, hidden_states: torch.Tensor, *arguments: Any, **named: Any) -> Any:
        return self.map(hidden_states), None

    def init_weights(self, std: float) -> None:
        init.normal_(self.map.weight, std=std)
        init.zeros_(self.map.bias)


class Uncached(Around):
    """A running mean over the text, which it forgets between calls."""

    def forward(self, hidden_states: torch.Tensor, *arguments: Any, **named: Any) -> Any:
        mixed, _ = super().forward(hidden_states, *arguments, **named)
        places = torch.arange(1, hidden_states.shape[1] + 1)[:, None]
        return mixed + 3.0 * hidden_states.cumsum(1) / places, None


class Unfed(Around):
    def __init__(self, *, context: MixerContext) -> None:
        super().__init__(context=context)
        self.idle = nn.Parameter(torch.zeros(3))


class Noisy(Around):
    def forward(self, hidden_states: torch.Tensor, *arguments: Any, **named: Any) -> Any:
        mixed, _ = super().forward(hidden_states, *arguments, **named)
        return mixed + torch.randn(mixed.shape).to(mixed.dtype), None


class Unseeded(Around):
    drawn = 0

    def __init__(self, *, context: MixerContext) -> None:
        super().__init__(context=context)
        self.scale = nn.Parameter(torch.empty(()))

    def init_weights(self, std: float) -> None:
        Unseeded.drawn += 1
        init.constant_(self.scale, float(Unseeded.drawn))


class Coarse(Around):
    def forward(self, hidden_states: torch.Tensor, *arguments: Any, **named: Any) -> Any:
        mixed, _ = super().forward(hidden_states, *arguments, **named)
        return mixed + (20.0 if mixed.dtype == torch.bfloat16 else 0.0) * hidden_states, None


class Lost(Around):
    built = 0

    def __init__(self, *, context: MixerContext) -> None:
        super().__init__(context=context)
        Lost.built += 1
        self.factor = 1.0 + Lost.built

    def forward(self, hidden_states: torch.Tensor, *arguments: Any, **named: Any) -> Any:
        return self.factor * super().forward(hidden_states, *arguments, **named)[0], None


@dataclass(frozen=True, slots=True, kw_only=True)
class TellsTooMany:
    """No options."""

    def parameters(self, hidden_size: int) -> dict[str, int]:
        return {"attention": 7}


class Counted(Around):
    def __init__(self, config: TellsTooMany, *, context: MixerContext) -> None:
        super().__init__(context=context)


BROKEN: dict[str, tuple[Any, dict[str, Any], str]] = {
    "shapes": (Alone, {}, ""),
    "causality": (Peeking, {}, ""),
    "memory": (Blind, {}, "changes nothing behind"),
    "cache": (Uncached, {}, ""),
    "generation": (Uncached, {}, "other tokens"),
    "documents": (Uncached, {}, ""),
    "gradient": (Unfed, {}, "idle"),
    "determinism": (Noisy, {}, "other numbers"),
    "seed": (Unseeded, {}, "another mixer"),
    "bf16": (Coarse, {}, "differ by"),
    "saved": (Lost, {}, "other logits"),
    "counted": (Counted, {"config": TellsTooMany}, "tell 7 parameters"),
}


@pytest.mark.parametrize("name", [name for name in BROKEN if name != "shapes"])
def test_a_broken_mixer_is_caught(name: str, failure: Callable[..., str], spec_of: Callable[..., Any]) -> None:
    target, more, said = BROKEN[name]
    assert said in failure(spec_of(MixerSpec, target, **more), name)


def test_a_mixer_that_gives_one_thing_is_caught_where_the_model_unpacks_it(spec_of: Callable[..., Any]) -> None:
    from phasegate.registry.entries import Entry
    from phasegate.testing.checks import checks_of

    entry = Entry(dist="broken", version="0", component=spec_of(MixerSpec, Alone))
    (check,) = [check for check in checks_of(entry) if check.name == "shapes"]
    with pytest.raises(AssertionError, match=r"breaks the promise: Hidden states \(B, T, H\)"):
        check(entry)


def test_every_check_of_mixers_catches_something(names: Callable[[str], set[str]]) -> None:
    assert set(BROKEN) == names("mixer")
