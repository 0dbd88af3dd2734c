"""What two papers print of their cost, with its arithmetic corrected.

The first has a token budget (table 9.1 of the six phases), the second a table of compute (section 10 of Perspective).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from ..config.schema import HardwareSection
from .hardware import machine_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """A row of the paper's table 9.1: tokens, the share as printed in percent, the primary cost driver."""

    phase: str
    tokens: float
    printed: float
    driver: str

    @property
    def share(self) -> float:
        """Return the true share of the table's own total, between 0 and 1."""
        return self.tokens / PUBLISHED_TOKENS


#: The printed shares sum to 102.6: they are shares of about 3,005 B tokens, which leaves phase 6 out of the total.
PUBLISHED: tuple[Published, ...] = (
    Published(phase="foundation", tokens=2800e9, printed=93.0, driver="GPU hours"),
    Published(phase="specialization", tokens=150e9, printed=5.0, driver="compute"),
    Published(phase="alignment", tokens=35e9, printed=1.2, driver="annotation"),
    Published(phase="safety", tokens=12e9, printed=0.4, driver="red-team"),
    Published(phase="metacognition", tokens=8e9, printed=0.3, driver="expert verification"),
    Published(phase="optimization", tokens=80e9, printed=2.7, driver="long-context curation"),
)
PUBLISHED_TOKENS = sum(row.tokens for row in PUBLISHED)
PUBLISHED_SHARES = sum(row.printed for row in PUBLISHED)

#: What is wrong with the table, and what the paper says beside it that no plan can count.
REMARKS = (
    "paper: its printed shares sum to 102.6%, their total lacks phase 6; phase 1 has 90.8%, not 93%",
    "paper: an example of phases 3 to 5 costs 100 to 1000 times one of the others, for people's work",
)

#: What the second paper counts in, at the share of its peak that a training run reaches and the paper's own price.
A100 = machine_of(HardwareSection(device="a100", utilization=0.4, price=3.0), "bf16")


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """A stage of the second paper's compute table, and what it takes.

    ``claimed_flops`` and ``claimed_hours`` (of one A100) are as printed. ``parameters`` are those that one of the
    ``tokens`` passes; a pair of both costs ``factor`` FLOPs: 6 to train, 4 behind frozen weights, and 2 more for the
    forward pass of a ``teacher``.
    """

    phase: str
    stage: str
    claimed_flops: float
    claimed_hours: float
    parameters: float
    tokens: float
    factor: int = 6
    teacher: int = 0

    @property
    def claimed_rate(self) -> float:
        """Return the FLOP/s of one A100 that the claim implies."""
        return self.claimed_flops / self.claimed_hours / 3600

    @property
    def flops(self) -> float:
        """Return the FLOPs that the stage takes by arithmetic."""
        return (self.factor + self.teacher) * self.parameters * self.tokens

    @property
    def hours(self) -> float:
        """Return the hours of one A100 that this takes at the utilization stated; never fewer than at its peak."""
        hours = A100.hours(self.flops)
        assert self.flops / hours / 3600 <= A100.peak
        return hours

    @property
    def cost(self) -> float:
        """Return what these hours cost in US dollars."""
        return A100.cost(self.flops)


#: By phase component. The seed's parameters are as printed: FFNs for 20 of its 80 layers.
CLAIMS: tuple[Claim, ...] = (
    Claim(
        phase="dense-seed",
        stage="1 seed",
        claimed_flops=3.2e21,
        claimed_hours=2_700,
        parameters=6.83e9,
        tokens=1e12,
    ),
    Claim(
        phase="expert-differentiation",
        stage="3 differentiation",
        claimed_flops=8.1e22,
        claimed_hours=21_500,
        parameters=14.94e9,
        tokens=500e9,
    ),
    Claim(
        phase="ternary-distillation",
        stage="4 distillation",
        claimed_flops=3.2e22,
        claimed_hours=8_600,
        parameters=14.94e9,
        tokens=200e9,
        teacher=2,
    ),
    Claim(
        phase="manifold-alignment",
        stage="5 alignment",
        claimed_flops=1.6e21,
        claimed_hours=430,
        parameters=14.94e9,
        tokens=50e9,
        factor=4,
    ),
)
#: The seed whose routed layers use the FFNs of others, the only one that cloning preserves: a token passes 80 FFNs.
TIED = replace(CLAIMS[0], parameters=14.94e9)

CLAIM_REMARKS = (
    "paper: no stage fits its hours; the sum of FLOPs is right by cancellation, hours and cost are 7.5 times too low",
    "paper: it says $100K, elsewhere $50-80K; stage 4 has 10,752 h elsewhere, stage 5 960 h",
    "paper: 500 G tokens are 3.9 G for each of 128 experts, 0.48 a parameter; four experts a GPU take 533 GB, not 80",
)


def published_record() -> dict[str, Any]:
    """Return the first paper's table as JSON data."""
    return {
        "phases": [
            {
                "phase": row.phase,
                "tokens": row.tokens,
                "share": row.share,
                "share_as_printed": round(row.printed / 100, 6),
                "cost_driver": row.driver,
            }
            for row in PUBLISHED
        ],
        "tokens": PUBLISHED_TOKENS,
        "shares_as_printed_sum_to": round(PUBLISHED_SHARES / 100, 6),
    }


def claims_record(claims: Sequence[Claim]) -> dict[str, Any]:
    """Return the second paper's table as JSON data, claimed and corrected."""
    return {
        "device": A100.device.name,
        "peak_flops_per_second": A100.peak,
        "utilization": A100.utilization,
        "price_per_device_hour": A100.price,
        "stages": [_claim_record(claim) for claim in claims],
        "seed_with_shared_ffns": {"parameters": TIED.parameters, "flops": TIED.flops, "hours": TIED.hours},
        "claimed_flops": sum(claim.claimed_flops for claim in claims),
        "claimed_hours": sum(claim.claimed_hours for claim in claims),
        "flops": sum(claim.flops for claim in claims),
        "hours": sum(claim.hours for claim in claims),
        "cost": sum(claim.cost for claim in claims),
    }


def _claim_record(claim: Claim) -> dict[str, Any]:
    return {
        "phase": claim.phase,
        "claimed_flops": claim.claimed_flops,
        "claimed_hours": claim.claimed_hours,
        "claimed_flops_per_second": claim.claimed_rate,
        "above_peak": claim.claimed_rate > A100.peak,
        "parameters": claim.parameters,
        "tokens": claim.tokens,
        "flops_per_parameter_and_token": claim.factor + claim.teacher,
        "flops": claim.flops,
        "hours": claim.hours,
        "cost": claim.cost,
    }
