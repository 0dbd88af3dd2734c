"""What a study has found, as JSON data: a table of orders, or trials and what their parameters did."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ...registry.atomic import write_json
from ...registry.errors import StoreError
from .definition import Definition, curriculum_of
from .ending import refit_of
from .orders import is_valid
from .outcomes import COPY_OF, STOPPED_AFTER, outcomes_of
from .parameters import row_of, settings_of
from .point import PointOutcome
from .storage import StudyFolder
from .table import Found, Table, trainings

if TYPE_CHECKING:
    from optuna.study import Study
    from optuna.trial import FrozenTrial

    from ...registry.registry import Registry
    from ..run.store import Store

FORMAT = 1
_LEAST_FOR_IMPORTANCE = 8


def results_of(definition: Definition, study: Study, store: Store, registry: Registry) -> dict[str, Any]:
    """Return all that the trials of a study have found so far; ``StoreError`` where none has finished a seed."""
    trials = [trial for trial in study.get_trials(deepcopy=False) if outcomes_of(trial)]
    if not trials:
        raise StoreError(f"the study {study.study_name} has no results yet; run it on with platform study")
    section, space = definition.section, definition.space
    head = {
        "format": FORMAT,
        "kind": "parameters" if space.parameters else "orders",
        "experiment": definition.experiment.name,
        "study": study.study_name,
        "seeds": list(section.seeds),
        "scores": {
            name: {
                "direction": score.direction,
                "of": [f"{metric.use} {metric.metric}" for metric in score.of.values()],
                "relative": score.relative,
                "refit": score.refit,
            }
            for name, score in section.scores.items()
        },
    }
    if space.parameters:
        return {**head, **_trials(definition, study)}
    table = Table(
        rows=[row for row in space.rows if row.name in (found := _found(definition, trials))],
        found=found,
        scores=section.scores,
        documents=_documents(definition, store, registry),
    )
    numbers = {str(trial.user_attrs.get("row")): trial.number for trial in trials}
    record = table.record()
    curriculum = curriculum_of(definition.experiment, registry)
    for row in record["rows"]:
        row["trial"] = numbers.get(row["name"])
        row["valid"] = is_valid(row["order"].split(">"), curriculum)
    return {**head, **record}


def write_results(folder: StudyFolder, results: Mapping[str, Any]) -> None:
    """Write the results beside the study, whole or not at all."""
    write_json(folder.results, dict(results))


def _found(definition: Definition, trials: list[FrozenTrial]) -> Found:
    """Outcomes by row and seed; of a point that was carried out in parts or copied, the last word counts."""
    found: dict[str, dict[int, PointOutcome]] = {}
    for trial in trials:
        row = row_of(definition.space, trial.params)
        if row is not None and COPY_OF not in trial.user_attrs:
            for seed, one in outcomes_of(trial).items():
                found.setdefault(row.name, {})[seed] = one.outcome
    return found


def _documents(definition: Definition, store: Store, registry: Registry) -> Any:
    """What each document came to in a metric of a score, from the evidence of the stage that a run ended with."""
    from ...evals.records import read_measurements
    from ..run.assessing import evidence_file

    def documents(score: str, metric: str, stage: str) -> Mapping[str, float] | None:
        section = definition.section.scores[score]
        wanted = section.of[metric]
        revision = registry.get("gate", wanted.use).component.revision
        path = evidence_file(store, store.get(stage), wanted, revision, refit=refit_of(definition.experiment, section))
        if not path.is_file():
            return None
        measured = read_measurements(path).get(wanted.metric)
        # A value by document explains a metric only where the metric is their mean.
        if measured is None or measured.kind != "proportion" or not measured.per_document:
            return None
        return measured.per_document

    return documents


def _trials(definition: Definition, study: Study) -> dict[str, Any]:
    trials = study.get_trials(deepcopy=False)
    found = {str(trial.number): {s: one.outcome for s, one in outcomes_of(trial).items()} for trial in trials}
    return {
        "objectives": list(definition.choice.objectives),
        "parameters": [
            {
                "key": one.key,
                "low": one.low,
                "high": one.high,
                "log": one.log,
                "choices": list(one.choices) or None,
            }
            for one in definition.space.parameters
        ],
        "trials": [_trial(definition, trial) for trial in trials],
        "best": _best(study),
        "importance": _importance(definition, study),
        "trainings": trainings({number: seeds for number, seeds in found.items() if seeds}),
    }


def _trial(definition: Definition, trial: FrozenTrial) -> dict[str, Any]:
    row = row_of(definition.space, trial.params)
    outcomes = outcomes_of(trial)
    return {
        "number": trial.number,
        "state": trial.state.name.lower(),
        "order": None if row is None else row.order,
        "parameters": settings_of(trial.params),
        # What a pruned trial last reported is no value of its end.
        "values": (list(trial.values or ()) or None) if trial.state.name == "COMPLETE" else None,
        "constraints": dict(trial.constraints or {}),
        "stopped_after": trial.user_attrs.get(STOPPED_AFTER),
        "copy_of": trial.user_attrs.get(COPY_OF),
        "reason": trial.user_attrs.get("reason"),
        "seconds": sum(one.outcome.seconds for one in outcomes.values()),
        "scores": {seed: dict(one.outcome.scores) for seed, one in outcomes.items()},
    }


def _best(study: Study) -> list[int]:
    """The numbers of the best trials whose gates hold; of several objectives, of those that none dominates."""
    from optuna.study import StudyDirection
    from optuna.trial import TrialState

    ended = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    feasible = [trial for trial in ended if all(value <= 0 for value in (trial.constraints or {}).values())]
    if not feasible:
        return []
    if len(study.directions) > 1:
        kept = {trial.number for trial in study.best_trials}
        return sorted(kept & {trial.number for trial in feasible})
    pick = max if study.direction == StudyDirection.MAXIMIZE else min
    top = pick(trial.values[0] for trial in feasible)
    return [trial.number for trial in feasible if trial.values[0] == top]


def _importance(definition: Definition, study: Study) -> dict[str, float]:
    """The share of the first objective's variation that each parameter explains (PED-ANOVA: Watanabe 2023, 2304.10255);
    nothing where too few trials have finished to tell."""
    from optuna.importance import get_param_importances
    from optuna.trial import TrialState

    ended = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    if len(ended) < _LEAST_FOR_IMPORTANCE or len({trial.values[0] for trial in ended}) < 2:
        return {}
    target = (lambda trial: trial.values[0]) if len(study.directions) > 1 else None
    found = get_param_importances(study, target=target)
    return {key: float(value) for key, value in found.items()}
