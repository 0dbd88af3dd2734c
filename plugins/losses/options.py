"""Options of the loss terms, apart from them so that a plan can check an experiment without importing torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from pydantic import Field


@dataclass(frozen=True, slots=True, kw_only=True)
class AnchorLossConfig:
    """No options: what is looked at is the anchor's own choice."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BalanceConfig:
    """``window``: optimiser steps that the load looks back on; below 16 it may miss batch types (SPEC 2B.3)."""

    window: Annotated[float, Field(ge=1.0)] = 16.0


@dataclass(frozen=True, slots=True, kw_only=True)
class DiversityConfig:
    """Which pairs of experts are kept apart, and from where their directions are seen.

    ``pairs``: all, or only those that are no neighbours by the router. ``centre``: what the experts were cloned from
    (``clone``, known after an upcycling) or their mean. ``sketch``: into how many numbers an expert's weights are
    hashed; 0 compares the weights themselves. ``seed`` is that of the hashes.
    """

    pairs: Literal["all", "non-neighbours"] = "all"
    centre: Literal["clone", "mean"] = "clone"
    sketch: Annotated[int, Field(ge=0)] = 0
    seed: Annotated[int, Field(ge=0)] = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class DomainEntropyConfig:
    """Bounds in nats on the routing entropy of hard load, per layer.

    Domains in ``general`` only have a floor, ``general_floor``; all others are kept between ``floor`` and
    ``target_high``. ``uniformity`` weighs ln E minus the entropy of the overall load, ``cap_weight`` any expert's share
    of one domain above ``cap``. ``window``: optimiser steps that the load looks back on.
    """

    target_high: float = 1.1
    floor: float = 0.9
    general: tuple[str, ...] = ("general",)
    general_floor: float = 1.5
    uniformity: float = 3.0
    cap: float = 0.7
    cap_weight: float = 0.0
    window: Annotated[float, Field(ge=1.0)] = 8.0


@dataclass(frozen=True, slots=True, kw_only=True)
class DomainHelpfulnessConfig:
    """``kinds``: the professional ones, whose answers are to be kept."""

    kinds: tuple[str, ...] = ("medical", "legal", "security")


@dataclass(frozen=True, slots=True, kw_only=True)
class ExpertDeltaConfig:
    """``mode``: ``positions`` moves frozen experts that differ little towards each other, ``weights`` makes neighbours
    alike that are trained."""

    mode: Literal["positions", "weights"] = "positions"


@dataclass(frozen=True, slots=True, kw_only=True)
class FoldConfig:
    """``anchor``: weight of the part that keeps experts near the positions they began with."""

    anchor: Annotated[float, Field(ge=0.0)] = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class HarmAvoidanceConfig:
    """``kinds``: those that are to be refused; ``unlikelihood``: weight of the part that makes what should not be said
    unlikely."""

    kinds: tuple[str, ...] = ("harmful",)
    unlikelihood: Annotated[float, Field(ge=0.0)] = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class ImitationConfig:
    """No options: whom to imitate is the model that the phase starts from."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadVarianceConfig:
    """``window``: optimiser steps that the load looks back on; below 16 it may miss batch types (SPEC 2B.3)."""

    window: Annotated[float, Field(ge=1.0)] = 16.0


@dataclass(frozen=True, slots=True, kw_only=True)
class LossFreeBiasConfig:
    """``rate``: how far a bias moves per optimiser step, in units of probability."""

    rate: Annotated[float, Field(gt=0.0)] = 1e-3


@dataclass(frozen=True, slots=True, kw_only=True)
class OverRefusalConfig:
    """``kinds``: those that are to be answered although they may look harmful; ``margin``: by how many nats per token
    an answer is to be likelier than a refusal."""

    #: Rows without a rejected answer are nothing to it.
    compares: ClassVar[bool] = True

    kinds: tuple[str, ...] = ("benign", "medical", "legal", "security")
    margin: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class RouterZConfig:
    """No options."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SmoothConfig:
    """No options."""
