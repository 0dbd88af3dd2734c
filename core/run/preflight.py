"""What only the data can tell, looked at before anything is trained: one sentence now rather than after an hour."""

from __future__ import annotations

import importlib
from collections.abc import Mapping

from .plan import Plan

#: ``module:function`` by objective, called as ``function(plan, label, section)``; raises ``PhasegateError``.
CHECKS: Mapping[str, str] = {
    "anchor": ".anchoring:check_anchor",
    "contrast": "..data.two_sided:check_two_sided",
    "draft": ".drafting:check_draft",
    "probes": "..data.questions:check_questions",
    "sft": "..data.prepared:check_answers",
}


def preflight(plan: Plan) -> None:
    """Check the data of every step that is still to be carried out; raises ``DataError`` or ``ConfigError`` with the
    step's place in the experiment."""
    for stage in plan.stages:
        if stage.cached:
            continue
        for name, section in stage.section.steps.items():
            if section.objective in CHECKS:
                module, _, function = CHECKS[section.objective].partition(":")
                label = f"phases.{stage.name}.steps.{name}"
                getattr(importlib.import_module(module, __package__), function)(plan, label, section)
