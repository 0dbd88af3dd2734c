"""What trackers get of a run: the numbers of every logging step and of every gate, on one axis of optimiser steps."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..run.attempt import depends_on_the_process
from ..run.work import WITHOUT_STEPS

if TYPE_CHECKING:
    from ..run.loop import StageOutcome
    from ..run.plan import Plan, StagePlan
    from ..run.records import RunFolder
    from ..training.following import Logged
    from ..training.trackers import Trackers

FOLDER = "trackers"
VERDICTS = {"pass": 1.0, "undecided": 0.0, "fail": -1.0}


class Reports:
    """Places what a run tells on the axis of its whole curriculum and hands it to its trackers.

    Every optimiser step of every phase and attempt counts once, also of those that are taken from the store or were
    done by an earlier start of the run. Those are not reported again: a run that goes on, goes on where it stopped.
    """

    def __init__(self, trackers: Trackers, folder: Path) -> None:
        self.folder = folder
        self._trackers = trackers
        self._before = 0  # optimiser steps before the step at hand
        self._steps = 0  # of the step at hand

    def step(self, steps: int) -> None:
        """Hear that a step of so many optimiser steps has its turn."""
        self._before, self._steps = self._before + self._steps, steps

    def logged(self, told: Logged, place: int, speed: float | None) -> None:
        """Report a logging step of phase ``place``."""
        from ..training.trackers import load_values

        for step, loss in told.old:
            self._trackers.log(self._before + step, {"bump/old_loss": loss})
        values: dict[str, float] = {
            key: value
            for key, value in told.values.items()
            if key != "epoch" and not depends_on_the_process(key) and isinstance(value, int | float)
        }
        if speed is not None:
            values["tokens_per_second"] = speed
        if told.load is not None:
            values |= load_values(told.load.tolist())
        self._trackers.log(self._before + told.step, {**values, "phase": float(place)})

    def noted(self, values: Mapping[str, float]) -> None:
        """Report what a plugin logs of its phase, where the step at hand ends."""
        self._trackers.log(self._before + self._steps, values)

    def outcome(self, outcome: StageOutcome, stage: StagePlan, place: int) -> None:
        """Report what the gate of a phase measured and the bumps of its steps, where the phase ends."""
        if outcome.reused:
            self.step(trained_steps(outcome.facts, stage))
        self.step(0)
        if outcome.reused:
            return
        values = {"phase": float(place)}
        for one in outcome.judgements:
            name = f"gate/{one.criterion}/{one.metric}"
            values |= {f"{name}/value": one.value, f"{name}/low": one.low, f"{name}/high": one.high}
            values[f"{name}/verdict"] = VERDICTS[one.verdict]
        for attempt in outcome.facts["attempts"]:
            for step, bump in attempt["bump"].items():
                values[f"bump/{step}/height"] = bump["height"]
                if bump["recovery"] is not None:
                    values[f"bump/{step}/recovery"] = bump["recovery"]
        self._trackers.log(self._before, values)

    def close(self) -> None:
        """End the run in every tracker."""
        self._trackers.close()


def trained_steps(facts: dict[str, Any], stage: StagePlan) -> int:
    """Return how many optimiser steps a committed phase took, by its manifest."""
    fitted = {name for name, section in stage.section.steps.items() if section.objective in WITHOUT_STEPS}
    return sum(steps for attempt in facts["attempts"] for name, steps in attempt["steps"].items() if name not in fitted)


def open_reports(plan: Plan, folder: RunFolder) -> Reports | None:
    """Begin to report to the experiment's trackers, below the run's folder; None where it names none.

    Raises ``ConfigError`` for a tracker whose package is not installed.
    """
    names = plan.experiment.run.report_to
    if not names:
        return None
    from ..config.trackers import require_packages
    from ..run.fingerprint import to_plain

    require_packages(names)
    from ..training.trackers import open_trackers

    steps = sum(
        step.steps
        for stage in plan.stages
        for step in stage.section.steps.values()
        if step.objective not in WITHOUT_STEPS
    )
    name = f"{plan.experiment.name}/{folder.path.name}"
    where = folder.path / FOLDER
    return Reports(open_trackers(names, where, name, to_plain(plan.experiment), steps), where)
