"""Criteria that several phases share."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

#: Questions answered after the phase, less those before it; the phase adds how much may be lost.
KNOWLEDGE_KEPT: Mapping[str, Any] = MappingProxyType(
    {"use": "choice", "metric": "acc", "statistic": "difference", "against": "parent"}
)

#: What is said of the load in training: over the second half, when warm-up is over.
GINI: Mapping[str, Any] = MappingProxyType(
    {"use": "logged", "key": "router/gini", "window": 0.5, "metric": "mean", "at_most": 0.15}
)
