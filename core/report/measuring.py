"""Measuring what the phases of a run did not ask for: every metric of the curriculum after every phase."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from ..run.records import RunFolder
from ..run.store import Store

if TYPE_CHECKING:
    from ..run.interrupt import Interruption


def measure_every_phase(
    run: RunFolder, store: Store, plugins: Sequence[str], stop: Interruption, show: Callable[[str], None]
) -> int:
    """Measure each metric that any gate of the run's experiment asks for on the model of every finished phase, and
    return how many measurements were made; what is known already is not measured again.

    What a gate reads off the log of a phase, such as a plateau, exists after that phase only.
    """
    from ...registry.plugins import Plugins
    from ..config.loading import load_experiment
    from ..run.assessing import Assessor, evidence_file
    from ..run.bench import Bench
    from ..run.comparison import stages_of
    from ..run.plan import make_plan
    from ..run.processes import start_processes
    from ..study.ending import capabilities_of

    loaded = replace(load_experiment(str(run.experiment), (), plugins), unmet=True)
    plan = make_plan(loaded, Plugins.load(loaded.experiment.plugins, loaded.experiment.require), store)
    start_processes(plan.experiment.run.threads)
    bench = Bench(store=store, interruption=stop, allow_drift=True, callbacks=lambda step, tokens: ())
    assessor = Assessor(plan=plan, bench=bench)
    made = 0
    for stage in stages_of(run, store):
        for label, section in capabilities_of(plan.experiment).items():
            revision = plan.registry.get("gate", section.use).component.revision
            if evidence_file(store, stage.stage, section, revision).is_file():
                continue
            show(f"measures {label} after {stage.phase}")
            assessor.measure(stage.stage, section)
            made += 1
    return made
