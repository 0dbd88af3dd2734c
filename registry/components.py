"""Component specs: the data a plugin yields to say what it offers, one frozen class per kind."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Literal


@dataclass(frozen=True, slots=True, kw_only=True)
class Component:
    """A named thing of one kind.

    ``name`` is a-z, 0-9 and single hyphens. ``target`` is what builds it, ``"module:attribute"``, imported only when
    the component is used; ``config`` the dataclass of its options, ``"module:Dataclass"``, or none. ``summary`` is one
    sentence for listings. ``revision`` is raised whenever the same configuration may give other numbers;
    ``replaces`` lists former names, which still resolve, with a warning.
    """

    kind: ClassVar[str]

    name: str
    target: str | Callable[..., Any]
    config: str | type | None = None
    summary: str = ""
    revision: int = 1
    replaces: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class PhaseSpec(Component):
    """A phase of a curriculum; ``requires`` names what earlier phases must have provided, ``provides`` what later ones
    may then require.

    ``cost_driver`` is what such a phase mainly costs (compute, annotation, …), for the budget.
    """

    kind: ClassVar[str] = "phase"
    requires: tuple[str, ...] = ()
    provides: tuple[str, ...] = ()
    cost_driver: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class RouterSpec(Component):
    """A module that maps hidden states to (logits, weights, indices) of experts."""

    kind: ClassVar[str] = "router"


@dataclass(frozen=True, slots=True, kw_only=True)
class MixerSpec(Component):
    """A module that mixes the tokens of a layer in place of attention; ``cache`` is the type of the library's cache
    layer that holds what it remembers."""

    kind: ClassVar[str] = "mixer"
    cache: Literal["full_attention", "linear_attention", "sliding_attention"] = "full_attention"


@dataclass(frozen=True, slots=True, kw_only=True)
class LossSpec(Component):
    """A scalar term added to the task loss with a weight schedule.

    ``objectives`` are those of the steps that it can act in; none named means all that train.
    """

    kind: ClassVar[str] = "loss"
    objectives: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class QuantizerSpec(Component):
    """A rule that replaces weights by quantized ones in the forward pass."""

    kind: ClassVar[str] = "quantizer"


@dataclass(frozen=True, slots=True, kw_only=True)
class AnchorSpec(Component):
    """A safety anchor that watches hidden states in training and in generation."""

    kind: ClassVar[str] = "anchor"


@dataclass(frozen=True, slots=True, kw_only=True)
class GateSpec(Component):
    """A measurement of a model; ``metrics`` lists what it can report (``*`` matches any suffix; none named means that
    its options decide). ``higher_is_better`` says which way its metrics improve."""

    kind: ClassVar[str] = "gate"
    metrics: tuple[str, ...] = ()
    higher_is_better: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceSpec(Component):
    """A source of data; ``views`` lists the shapes it can give (text, chat, preference, choice, …)."""

    kind: ClassVar[str] = "source"
    views: tuple[str, ...] = ("text",)


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSpec(Component):
    """A builder of a causal language model."""

    kind: ClassVar[str] = "model"


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchSpaceSpec(Component):
    """A space of parameters or orders for studies."""

    kind: ClassVar[str] = "search-space"


KINDS: dict[str, type[Component]] = {
    spec.kind: spec
    for spec in (
        AnchorSpec,
        GateSpec,
        LossSpec,
        MixerSpec,
        ModelSpec,
        PhaseSpec,
        QuantizerSpec,
        RouterSpec,
        SearchSpaceSpec,
        SourceSpec,
    )
}
