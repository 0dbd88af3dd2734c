"""What a verdict leads to: advance, extend, roll back or stop, within bounds that the experiment sets."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ..config.schema import PolicySection

Outcome = Literal["pass", "fail", "undecided"]
Action = Literal["advance", "extend", "rollback", "stop"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """What happens next, and the sentence that says why."""

    action: Action
    reason: str


def decide(policy: PolicySection, outcome: Outcome, attempt: int, *, extendable: bool = True) -> Decision:
    """Return the action for ``outcome`` after ``attempt`` (0 is the first training of the phase); ``extendable`` says
    whether the phase has steps that can go on.

    Extensions and roll-backs together are bounded by ``policy.extensions``; past that, ``policy.then`` decides,
    and only ``advance`` and ``stop`` are left.
    """
    if outcome == "pass":
        return Decision(action="advance", reason="every criterion passed")
    wanted = policy.on_fail if outcome == "fail" else policy.on_undecided
    said = "a criterion failed" if outcome == "fail" else "a criterion is undecided"
    if wanted in {"advance", "stop"}:
        return Decision(action=wanted, reason=f"{said}; the policy says {wanted}")
    last: Action = "advance" if policy.then == "advance" else "stop"
    if wanted == "extend" and not extendable:
        return Decision(action=last, reason=f"{said}, and no step of the phase can go on; the policy says {last}")
    if attempt < policy.extensions:
        return Decision(action=wanted, reason=f"{said}; {wanted} {attempt + 1} of {policy.extensions}")
    return Decision(
        action=last, reason=f"{said} after {attempt} of {policy.extensions} repeats; the policy says {last}"
    )
