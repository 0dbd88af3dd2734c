"""What phasegate promises of a phase, a loss and a quantizer holds for those of this package."""

from __future__ import annotations

from phasegate.registry.entries import Entry
from phasegate.testing import conformance
from phasegate.testing.checks import Check


@conformance("phasegate-nbit", examples={"quantizer/nbit": {"bits": 4}, "phase/consolidation": {"steps": 8}})
def test_conforms(entry: Entry, check: Check) -> None:
    check(entry)
