"""One trial of a study: carried out over all seeds, copied, or left out, and told to Optuna."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .choosing import Choice
from .failures import FAILED, beginning, failed_before, failures, scope_of
from .news import State, TrialNews
from .outcomes import (
    COPY_OF,
    MARGINS,
    ORDER_OF,
    ROW,
    SKIPPED_FOR,
    STOPPED_AFTER,
    SeedOutcome,
    constraints_of,
    from_json,
    mean_scores,
    seed_key,
    to_json,
    worse,
)
from .parameters import point_key, row_of, settings_of
from .point import Carry, GateStopped, PointRequest, StageFacts
from .space import Row, SearchSpace
from .workers import POINT, REASON, RETRY_OF, SEEN, WORKER, Hold, was_broken_off

if TYPE_CHECKING:
    from optuna.study import Study
    from optuna.trial import FrozenTrial, Trial

_OWN = frozenset({POINT, RETRY_OF, SEEN, WORKER})  # attributes that a copy has of its own
_PHASES = 1000  # more than a curriculum has, so that the steps of two seeds never meet


@dataclass(frozen=True, slots=True, kw_only=True)
class Trying:
    """What every trial of a study is carried out with."""

    study: Study
    space: SearchSpace
    choice: Choice
    seeds: Sequence[int]
    carry: Carry
    stop: Callable[[], None]
    show: Callable[[TrialNews], None]

    def __call__(self, trial: Trial, hold: Hold) -> None:
        """Carry out a trial that has been taken, and end it."""
        began = time.monotonic()
        row, settings = row_of(self.space, trial.params), settings_of(trial.params)
        if row is not None:
            trial.set_user_attr(ORDER_OF, row.order)
            trial.set_user_attr(ROW, row.name)
        trials = self.study.get_trials(deepcopy=False)
        ended = [one for one in trials if one.state.is_finished() and not was_broken_off(one)]
        total = max(self.choice.trials, len(ended))
        news = TrialNews(
            number=trial.number, state="running", row=row, parameters=settings, done=len(ended), total=total
        )
        self.show(news)
        state = self._end(trial, row, settings, ended, hold)
        frozen = self.study.get_trials(deepcopy=False)[trial.number]
        self.show(
            TrialNews(
                number=trial.number,
                state=state,
                row=row,
                parameters=settings,
                done=len(ended) + 1,
                total=max(total, len(ended) + 1),
                values=tuple(frozen.values) if frozen.state.name == "COMPLETE" else (),
                seconds=time.monotonic() - began,
                reason=str(frozen.user_attrs.get(REASON, "")),
            )
        )

    def _end(
        self, trial: Trial, row: Row | None, settings: Mapping[str, Any], ended: Sequence[FrozenTrial], hold: Hold
    ) -> State:
        point = point_key(trial.params)
        twin = next((one for one in ended if point_key(one.params) == point), None)
        if twin is not None:
            return self._copy(trial, twin, hold)
        if row is not None and (found := failed_before(row, settings, failures(ended))) is not None:
            order, number = found
            trial.set_user_attr(SKIPPED_FOR, number)
            trial.set_user_attr(STOPPED_AFTER, order.split(">")[-1])
            trial.set_user_attr(REASON, f"begins like trial {number}, which a gate ended after {order}")
            self._tell(trial, hold, "PRUNED")
            return "skipped"
        return self._carry_out(trial, row, settings, hold)

    def _carry_out(self, trial: Trial, row: Row | None, settings: Mapping[str, Any], hold: Hold) -> State:
        from optuna import TrialPruned

        try:
            outcomes = self._over_seeds(trial, row, settings)
        except GateStopped as stopped:
            trial.set_user_attr(STOPPED_AFTER, stopped.phase)
            trial.set_user_attr(REASON, str(stopped))
            if row is not None and stopped.phase in row.phases:
                trial.set_user_attr(FAILED, [scope_of(row, settings), beginning(row, stopped.phase)])
            self._tell(trial, hold, "PRUNED")
            return "pruned"
        except TrialPruned as pruned:
            trial.set_user_attr(REASON, str(pruned))
            self._tell(trial, hold, "PRUNED")
            return "pruned"
        values, lacking = mean_scores(outcomes, self.choice.objectives)
        if lacking:
            trial.set_user_attr(REASON, lacking)
            self._tell(trial, hold, "FAIL")
            return "failed"
        self._tell(trial, hold, "COMPLETE", values)
        return "complete"

    def _over_seeds(self, trial: Trial, row: Row | None, settings: Mapping[str, Any]) -> dict[int, SeedOutcome]:
        """The outcome of every seed; those that an earlier try of this point has finished are not repeated.

        Every trial begins at another seed, so that two workers do not wait for one beginning. The median compares
        trials after the same phase of the same seed, so a study that prunes by it keeps their order.
        """
        first = 0 if self.choice.prune else trial.number % len(self.seeds)
        outcomes: dict[int, SeedOutcome] = {}
        for place, seed in enumerate((*self.seeds[first:], *self.seeds[:first])):
            key = seed_key(seed)
            if key not in trial.user_attrs:
                self.stop()
                watch = _Watch(trial, place, self.choice)
                try:
                    outcome = self.carry(
                        PointRequest(row=row, parameters=dict(settings), seed=seed, on_stage=watch.on_stage)
                    )
                finally:
                    # What a gate or the median ends, or what breaks off, keeps the margins that it had.
                    if watch.margins:
                        trial.set_user_attr(MARGINS, worse(trial.user_attrs.get(MARGINS, {}), watch.margins))
                trial.set_user_attr(key, to_json(outcome, watch.margins))
            outcomes[seed] = from_json(trial.user_attrs[key])
        return outcomes

    def _copy(self, trial: Trial, twin: FrozenTrial, hold: Hold) -> State:
        """End a trial like the one that drew the same point before: it would come out the same."""
        for key, value in twin.user_attrs.items():
            if key not in _OWN and key != REASON:
                trial.set_user_attr(key, value)
        trial.set_user_attr(COPY_OF, twin.user_attrs.get(COPY_OF, twin.number))
        said = twin.user_attrs.get(REASON)
        trial.set_user_attr(REASON, said if twin.state.name == "FAIL" else f"the same point as trial {twin.number}")
        complete = twin.state.name == "COMPLETE"
        self._tell(trial, hold, twin.state.name, twin.values if complete else None)
        return "copied"

    def _tell(self, trial: Trial, hold: Hold, state: str, values: Sequence[float] | None = None) -> None:
        from optuna.trial import TrialState

        constraints = constraints_of(trial.user_attrs.get(MARGINS, {}))
        if constraints and len({frozenset(row.phases) for row in self.space.rows}) > 1:
            # A sampler that models constraints needs the same ones in every trial.
            constraints = {"gates": max(constraints.values())}
        for name, margin in constraints.items():
            trial.set_constraint(name, margin)
        hold.still()
        self.study.tell(trial, None if values is None else list(values), state=TrialState[state])


class _Watch:
    """What the stages of one seed say, and the end of the trial where the median says so."""

    def __init__(self, trial: Trial, place: int, choice: Choice) -> None:
        self._trial, self._place, self._choice = trial, place, choice
        self.margins: dict[str, float] = {}

    def on_stage(self, facts: StageFacts) -> None:
        from optuna import TrialPruned

        self.margins.update({f"{facts.phase}:{name}": margin for name, margin in facts.margins.items()})
        finite = [margin for margin in self.margins.values() if math.isfinite(margin)]
        if not self._choice.prune or not finite:
            return
        mean = math.fsum(finite) / len(finite)  # at most 0 is good, whatever the study's direction
        lower_is_better = self._choice.directions == ("minimize",)
        self._trial.report(mean if lower_is_better else -mean, self._place * _PHASES + facts.number)
        if self._trial.should_prune():
            self._trial.set_user_attr(STOPPED_AFTER, facts.phase)
            raise TrialPruned(f"after {facts.phase} its gates hold less well than the median of earlier trials")
