"""Laying one shaped value over another, and settling what is left when the last layer is on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .shaping import NAMED, entries_of, hints, section_of


def merge(base: Any, over: Any) -> Any:
    """Return ``over`` laid upon ``base``: mappings key by key, everything else whole.

    ``None`` stays, so that it can remove what a lower layer says (``settle`` acts on it). Where ``over`` names another
    component, the options of the old one are dropped, and with a criterion the whole old criterion.
    """
    if not (isinstance(base, Mapping) and isinstance(over, Mapping)):
        return over
    if {"use"} <= base.keys() & over.keys() and base["use"] != over["use"]:
        base = {} if "metric" in base else {key: item for key, item in base.items() if key != "options"}
    merged = dict(base)
    for key, item in over.items():
        merged[key] = merge(base[key], item) if key in base else item
    return merged


def settle(section: type, shaped: Mapping[str, Any], name: str | None = None) -> dict[str, Any]:
    """Return the final layer: what was set to null in a mapping by name is gone, and ``use`` is filled from names."""
    known = hints(section)
    settled: dict[str, Any] = {}
    for key, item in shaped.items():
        inner, entry = section_of(known[key]), entries_of(known[key])
        if key == "options" or item is None:
            settled[key] = item if item is not None else {} if key == "options" else None
        elif inner is not None:
            settled[key] = settle(inner, item) if isinstance(item, Mapping) else item
        elif entry is not None and isinstance(item, Mapping):
            part = section_of(entry)
            settled[key] = {
                label: settle(part, value, label) if part is not None else value
                for label, value in item.items()
                if value is not None or entry is Any  # among values of any kind null is one of them
            }
        else:
            settled[key] = item
    if section in NAMED and name is not None and not settled.get("use"):
        settled["use"] = name
    return settled
