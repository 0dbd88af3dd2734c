"""Options of the steps that make another model of a model, of distillation, and of quantizers that come by and by."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Literal

from pydantic import Field

from ...registry.errors import ConfigError
from .schema import FreshSection, ModelSection

Positive = Annotated[float, Field(gt=0.0)]


@dataclass(frozen=True, slots=True, kw_only=True)
class DistillOptions:
    """A model learns from a frozen ``teacher`` beside the text: an earlier stage, or the one that the phase starts from
    (``parent``). The loss is (1 - ``share``) cross-entropy + ``share`` T^2 KL, T being the ``temperature`` of both and
    the ``direction`` of KL ``forward`` from the teacher to the student (Hinton 2015, 1503.02531) or ``reverse`` (Gu
    2023, 2306.08543)."""

    teacher: str = "parent"
    share: Annotated[float, Field(ge=0.0, le=1.0)] = 0.5
    temperature: Positive = 1.0
    direction: Literal["forward", "reverse"] = "forward"


@dataclass(frozen=True, slots=True, kw_only=True)
class BreakerOptions:
    """How copies of an expert are told apart.

    ``breaker`` re-initialises the share ``strength`` of an expert's units (``drop``, 0.5 if not given), adds noise of
    that many standard deviations (``noise``, 0.01), or does nothing. ``strength`` is halved until perplexity on
    ``rows`` held-out rows rises by no more than ``drift``. ``top_k`` is how many experts a token passes afterwards, as
    many as in the experiment's model (after upcycling) or as before (after growth) if not given.
    """

    top_k: Annotated[int, Field(ge=1)] | None = None
    breaker: Literal["drop", "noise", "none"] = "drop"
    strength: Annotated[float, Field(gt=0.0, le=1.0)] | None = None
    drift: Positive = 0.05
    rows: Annotated[int, Field(ge=1)] = 32

    def __post_init__(self) -> None:
        if self.breaker == "none" and self.strength is not None:
            raise ValueError("strength has no effect with breaker none; remove it, or choose drop or noise")


@dataclass(frozen=True, slots=True, kw_only=True)
class UpcycleOptions(BreakerOptions):
    """Every expert is cloned from the FFN of a dense model. ``experts`` are those of the experiment's model if not
    given."""

    experts: Annotated[int, Field(ge=1)] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class GrowOptions(BreakerOptions):
    """Every expert becomes ``copies``, of which all but the first are told apart."""

    copies: Annotated[int, Field(ge=2)] = 2
    breaker: Literal["drop", "noise", "none"] = "noise"


@dataclass(frozen=True, slots=True, kw_only=True)
class RerouteOptions:
    """``rows`` of training text whose hidden states the new router is fitted to."""

    rows: Annotated[int, Field(ge=1)] = 32


#: Steps that make another model of the one before, without training it.
CONVERSIONS: Mapping[str, type] = {"grow": GrowOptions, "reroute": RerouteOptions, "upcycle": UpcycleOptions}

#: Objectives that read rows of text as they are packed.
CAUSAL = ("causal", "distill")

#: The strength of a breaker that none is given for: Nakamura 2025, 2502.19261, and a hundredth of the weights' spread.
STRENGTH: Mapping[str, float] = {"drop": 0.5, "noise": 0.01, "none": 0.0}


def refreshed(model: ModelSection, fresh: FreshSection) -> ModelSection:
    """Return the experiment's model with what a step that begins anew says of it."""
    return replace(
        model,
        mixer=fresh.mixer or model.mixer,
        router=fresh.router or model.router,
        options={**model.options, **fresh.options},
    )


def check_schedule(events: Sequence[float], shares: Sequence[float], label: str) -> None:
    """Raise ``ConfigError`` unless the events rise from 0 or later, and the shares to all of the weights.

    The last event comes before the end, so that some of the step trains with all weights quantized; the original has
    it on the last step.
    """
    if len(events) != len(shares) or not events:
        raise ConfigError(
            f"{label}: {len(events)} events and {len(shares)} shares do not belong together; give one share of the "
            "weights for every event."
        ).within("events" if len(events) < len(shares) else "shares")
    if list(events) != sorted(set(events)) or not events[0] >= 0 or not events[-1] < 1:
        raise ConfigError(
            f"{label}.events are {list(events)}, but must rise from 0 or later to less than 1, as shares of the step; "
            "shift them, so that its last part trains with all weights quantized."
        ).within("events")
    if list(shares) != sorted(set(shares)) or not shares[0] > 0:
        text = f"{label}.shares are {list(shares)}, but each must be more than the one before."
        raise ConfigError(text).within("shares")
    if shares[-1] != 1:
        raise ConfigError(
            f"{label}.shares end at {shares[-1]:g}, so that the weights are never all quantized; let the last share be "
            "1."
        ).within("shares")
