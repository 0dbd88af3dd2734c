"""The loop of a study: take a trial, carry it out, until nothing is left to try."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from .choosing import Choice, choose
from .failures import failed_before, failures
from .news import TrialNews
from .parameters import ORDER, distributions, grid, point_key, size_of
from .point import Carry
from .space import SearchSpace
from .trying import Trying
from .workers import POINT, Worker, enqueue, give_back, was_broken_off

if TYPE_CHECKING:
    from optuna.study import Study
    from optuna.trial import FrozenTrial, Trial

    from ..config.schema import StudySection


def run_study(
    study: Study,
    section: StudySection,
    space: SearchSpace,
    carry: Carry,
    *,
    worker: Worker,
    stop: Callable[[], None] = lambda: None,
    show: Callable[[TrialNews], None] = lambda news: None,
) -> None:
    """Carry out trials of a study until it has as many as it is to have, or every point of its space was tried.

    A trial is one row and one setting of the parameters, over all seeds; its values are means over seeds. Finished
    trials are not repeated, those of workers that died are taken up, and a point that was drawn before is copied.
    ``stop`` is called between seeds and may raise; then, as after any other error, the trial is queued again with the
    seeds that it has finished. ConfigError where the section does not fit the space.
    """
    choice = choose(section, space)
    trying = Trying(study=study, space=space, choice=choice, seeds=section.seeds, carry=carry, stop=stop, show=show)
    with worker.asking(stop):
        _fill(study, space, choice)
    while True:
        stop()
        with worker.asking(stop):
            worker.bury(study)
            trial = _next(study, space, choice)
            hold = None if trial is None else worker.take(trial)
        if trial is None or hold is None:
            # Another worker may die yet and leave its trial.
            if worker.wait_for_another(study, stop):
                continue
            return
        with hold:
            try:
                trying(trial, hold)
            except BaseException as error:
                hold.still()
                broken = study.get_trials(deepcopy=False)[trial.number]
                if not broken.state.is_finished():
                    give_back(study, broken)
                    error.add_note(f"in trial {trial.number} of the study {study.study_name}; it is queued again")
                raise


def _fill(study: Study, space: SearchSpace, choice: Choice) -> None:
    """Queue what has to run whatever the sampler thinks: every point of an exhaustive study, listed rows, or, where the
    study is empty, the first row (the written order)."""
    trials = study.get_trials(deepcopy=False)
    wanted: list[dict[str, Any]] = []
    if choice.sampler == "exhaustive":
        wanted = list(grid(space))
    elif len(space.rows) > 1 and (space.listed or not trials):
        wanted = [{ORDER: row.key} for row in (space.rows if space.listed else space.rows[:1])]
    there = {trial.user_attrs.get(POINT) for trial in trials}
    for drawn in wanted:
        if point_key(drawn) not in there:
            enqueue(study, drawn, {})


def _next(study: Study, space: SearchSpace, choice: Choice) -> Trial | None:
    """The next trial with everything drawn; None where the study has all that it is to have."""
    trials = study.get_trials(deepcopy=False)
    spent = [trial for trial in trials if trial.state.name != "WAITING" and not was_broken_off(trial)]
    if len(spent) >= choice.trials:
        return None
    if not any(trial.state.name == "WAITING" for trial in trials) and not _left(space, choice, spent):
        return None
    return study.ask(distributions(space))


def _left(space: SearchSpace, choice: Choice, spent: Sequence[FrozenTrial]) -> bool:
    """Whether a sampler has anything new to draw."""
    if choice.sampler == "exhaustive":
        return False
    tried = {point_key(trial.params) for trial in spent}
    if space.parameters:
        size = size_of(space)
        return size is None or len(tried) < size
    known = failures(spent)
    return any(point_key({ORDER: row.key}) not in tried and failed_before(row, {}, known) is None for row in space.rows)
