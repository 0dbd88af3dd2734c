"""One proof: what was to be shown of what, whether it was, and why not."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

Outcome = Literal["holds", "fails", "skipped"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Proof:
    """``name`` says which of the proofs it is, ``subject`` of what; ``reason`` is what was seen, in a sentence."""

    name: str
    subject: str
    outcome: Outcome
    reason: str


Proofs = Iterator[Proof]


def proved(name: str, subject: str, wrong: str | None, right: str) -> Proof:
    """Return a proof that fails with the reason ``wrong`` if there is one, and else holds with ``right``."""
    if wrong is not None:
        return Proof(name=name, subject=subject, outcome="fails", reason=wrong)
    return Proof(name=name, subject=subject, outcome="holds", reason=right)


def some(names: list[str], most: int = 3) -> str:
    """Return the first names of a list, and how many more there are."""
    shown = ", ".join(names[:most])
    return shown if len(names) <= most else f"{shown} and {len(names) - most} more"
