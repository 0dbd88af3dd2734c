"""What a gate measures: values with their document counts, and per-document values where they exist."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """One metric of one model.

    ``value`` is NaN where it could not be evaluated, and ``missing`` then says why.
    ``per_document`` maps a document's hash to its value; it is what paired statistics and bootstraps stand on.
    ``interval`` is set only by a gate that knows a better one than its ``kind`` gives; each of its ends is a
    one-sided bound with ``interval_confidence``.
    """

    metric: str
    value: float
    n: int
    kind: Literal["proportion", "mean", "exact"] = "mean"
    per_document: Mapping[str, float] = field(default_factory=dict)
    interval: tuple[float, float] | None = None
    interval_confidence: float = 0.95
    chance: float | None = None
    missing: str | None = None
    evidence: Mapping[str, Any] = field(default_factory=dict)


def missing(metric: str, reason: str) -> Measurement:
    """A measurement that could not be made, and why; no criterion passes on it."""
    return Measurement(metric=metric, value=math.nan, n=0, missing=reason)
