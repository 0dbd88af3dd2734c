"""What phasegate promises of a router and of a gate holds for those of this package."""

from __future__ import annotations

from phasegate.registry.entries import Entry
from phasegate.testing import conformance
from phasegate.testing.checks import Check


@conformance("phasegate-hash-router", examples={"router/hash": {"bits": 6}, "gate/stability": {"least": 1}})
def test_conforms(entry: Entry, check: Check) -> None:
    check(entry)
