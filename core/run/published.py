"""The paper's token budget (table 9.1), with its arithmetic corrected."""

from __future__ import annotations

from dataclasses import dataclass


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
