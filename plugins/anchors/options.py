"""Options of the safety anchors, apart from them so that a plan can check an experiment without importing torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from pydantic import Field


@dataclass(frozen=True, slots=True, kw_only=True)
class HalfSpaceConfig:
    """``strength``: inverse of the L2 penalty of the regression, on standardised states. ``references``: how many
    prompts of each side are kept for the penalty. ``batch``: how many of them the penalty looks at in one training
    step. ``keep``: the share of its margin at capture that a reference prompt must keep."""

    strength: Annotated[float, Field(gt=0.0)] = 0.1
    references: Annotated[int, Field(ge=1)] = 32
    batch: Annotated[int, Field(ge=1)] = 8
    keep: Annotated[float, Field(gt=0.0, le=1.0)] = 1.0
