"""Shares by name as options of components have them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

from pydantic import AfterValidator, Field


def _some(shares: Mapping[str, float]) -> Mapping[str, float]:
    if shares and not any(shares.values()):
        raise ValueError("it gives everything a share of 0, and at least one must be above 0")
    return shares


#: A share that is not negative.
Share = Annotated[float, Field(ge=0.0)]

#: Shares by name, of which at least one is above 0; they need not add up to one.
Mixture = Annotated[Mapping[str, Share], AfterValidator(_some)]
