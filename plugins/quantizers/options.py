"""Options of the quantizers, apart from them so that a plan can check an experiment without importing torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field


@dataclass(frozen=True, slots=True, kw_only=True)
class TernaryConfig:
    """Which weights become zero, and what shares a scale.

    ``threshold``: weights up to this many times the mean |W| become 0; 0.7 is best for Gaussian weights (Li 2016,
    1605.04711). ``scale``: one per output ``row`` or one per ``tensor``, which is the matrix of one expert.
    """

    threshold: Annotated[float, Field(ge=0.0, le=1.0)] = 0.7
    scale: Literal["row", "tensor"] = "row"
