"""Options of the components, apart from them so that a plan checks an experiment without importing torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Literal

from pydantic import Field

Bits = Annotated[int, Field(ge=2, le=8)]


@dataclass(frozen=True, slots=True, kw_only=True)
class NBitConfig:
    """``bits`` of each weight, its sign among them, and what shares a ``scale``: an output ``row``, or the ``matrix``
    of one expert."""

    bits: Bits = 8
    scale: Literal["row", "matrix"] = "row"


@dataclass(frozen=True, slots=True, kw_only=True)
class RoutingConsistencyConfig:
    """``temperature`` divides the logits of both routers before they are compared; above 1 the experts that were not
    chosen count for more."""

    temperature: Annotated[float, Field(gt=0.0)] = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ConsolidationConfig:
    """``steps`` in optimiser steps, ``bits`` of each weight of an expert, and ``order``, which says what of every
    matrix is quantized first.

    ``consistency`` weighs the loss that keeps the routers near those of the phase before; 0 leaves it out, as it must
    be where routers learn nothing. ``mixture`` gives the domains' shares of the text (the data's own where empty), and
    ``tolerance`` the relative rise of perplexity that completion allows.
    """

    steps: Annotated[int, Field(ge=1)] = 200
    bits: Bits = 8
    order: Literal["largest", "smallest", "soft"] = "largest"
    consistency: Annotated[float, Field(ge=0.0)] = 0.1
    mixture: Mapping[str, float] = field(default_factory=dict)
    tolerance: Annotated[float, Field(gt=0.0)] = 0.02
