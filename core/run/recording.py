"""The record of a plan that is about to be carried out."""

from __future__ import annotations

from pathlib import Path

from ..config.dump import to_yaml
from .plan import Plan, plan_record
from .records import RunFolder, create_run


def record_of(plan: Plan, runs: Path, gates: str, drift: bool) -> RunFolder:
    """Write what was asked and planned to a new run folder."""
    return create_run(
        runs,
        plan.experiment.name,
        text=to_yaml(plan.experiment),
        plan=plan_record(plan),
        manifest={"plugins": dict(plan.provenance), "gates": gates, "plugin_drift_allowed": drift},
    )
