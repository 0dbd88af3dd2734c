"""What phasegate promises of a router and of a gate holds for those of this package."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from phasegate.registry.entries import Entry
from phasegate.testing import conformance
from phasegate.testing.checks import Check, Example


def one_token() -> tuple[dict[str, Any], Mapping[str, float]]:
    """Six documents of one and the same token, which any router sends to one of its eight experts."""
    rows = [{"text": "a", "domain": "general", "number": number} for number in range(6)]
    return {"view": lambda name, split: rows}, {"same_token": 1.0, "same_token/general": 1.0, "evenness": 1 / 8}


EXAMPLES = {
    "gate/stability": Example(options={"least": 1}, hand=one_token),
    "router/hash": Example(options={"bits": 6}),
}


@conformance("phasegate-hash-router", examples=EXAMPLES)
def test_conforms(entry: Entry, check: Check) -> None:
    check(entry)
