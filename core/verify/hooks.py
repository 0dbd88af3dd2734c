"""Proofs of hooks: every documented one is called in a run, and every one that a plugin implements with it."""

from __future__ import annotations

from ...registry.hookspecs import HOOKS
from .proof import Proofs, proved, some
from .rehearsal import Rehearsal


def hooks(rehearsal: Rehearsal) -> Proofs:
    """Every hook but that of components, which loading called, was called in the rehearsal."""
    for hook, parameters in HOOKS.items():
        if not parameters:
            continue
        count = rehearsal.called.get(hook, 0)
        owners = sorted({call.owner for call in rehearsal.plan.plugins.calls(hook)} - {"phasegate:core"})
        whose = f", of {some(owners)}" if owners else ""
        wrong = f"no phase called it{whose}" if not count else None
        yield proved("hook is called", f"{hook}{whose}", wrong, f"{count} calls")
