"""What Optuna does that a study has to work around; where one of these fails, the library has changed."""

from __future__ import annotations

import math
from typing import Any

import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution
from optuna.trial import TrialState
from phasegate.core.study.space import Parameter, Row, SearchSpace
from phasegate.registry.errors import StoreError


def test_a_study_of_several_objectives_can_neither_report_nor_prune() -> None:
    trial = optuna.create_study(directions=["maximize", "maximize"]).ask()
    with pytest.raises(NotImplementedError):
        trial.report(1.0, 0)
    with pytest.raises(NotImplementedError):
        trial.should_prune()


def test_the_choices_of_a_parameter_cannot_change_within_a_study() -> None:
    study = optuna.create_study()
    study.tell(study.ask({"order": CategoricalDistribution(["a>b"])}), 1.0)
    with pytest.raises(ValueError, match="dynamic value space"):
        study.ask({"order": CategoricalDistribution(["a>b", "b>a"])})


def test_and_so_a_row_that_is_added_is_refused_before_anything_is_drawn(bench: Any, fake: Any) -> None:
    rows = (Row(name="one", order="a>b"), Row(name="two", order="b>a"), Row(name="three", order="a"))
    bench.run(bench.section(), SearchSpace(rows=rows[:2], listed=True), fake(score=lambda request: {"quality": 1.0}))
    with pytest.raises(StoreError, match=r"space\.three: "):
        bench.open(bench.section(), SearchSpace(rows=rows, listed=True))


def test_a_constraint_is_set_once_and_never_nan() -> None:
    trial = optuna.create_study().ask()
    with pytest.raises(ValueError, match="NaN is not allowed"):
        trial.set_constraint("a:acc", math.nan)
    trial.set_constraint("a:acc", 0.5)
    with pytest.warns(UserWarning, match="already set"):
        trial.set_constraint("a:acc", -0.5)
    assert trial.constraints == {"a:acc": 0.5}


def test_a_gaussian_process_refuses_trials_with_different_constraints() -> None:
    study = optuna.create_study(sampler=optuna.samplers.GPSampler(seed=0, n_startup_trials=2))
    space: dict[str, Any] = {"x": FloatDistribution(0, 1)}
    for names in (("a",), ("a", "b")):
        trial = study.ask(space)
        for name in names:
            trial.set_constraint(name, -1.0)
        study.tell(trial, 1.0)
    with pytest.raises(ValueError, match="number of constraints must be the same"):
        study.ask(space)


def test_a_trial_that_the_median_ended_has_its_last_report_as_its_value() -> None:
    """So the value of a pruned trial is a margin of gates, not a score, and must not be shown as one."""
    study = optuna.create_study()
    trial = study.ask()
    trial.report(0.25, 3)
    study.tell(trial, state=TrialState.PRUNED)
    assert study.trials[0].values == [0.25]


def test_a_setting_that_equals_another_of_another_type_would_be_taken_for_it() -> None:
    assert CategoricalDistribution([1, True]).to_internal_repr(True) == 0.0


def test_opening_a_journal_with_load_if_exists_writes_to_it(bench: Any, fake: Any) -> None:
    space = SearchSpace(parameters=(Parameter(key="k", choices=(1, 2)),))
    bench.open(bench.section(), space)
    before = (bench.path / "journal.log").read_bytes()
    bench.open(bench.section(), space)
    assert (bench.path / "journal.log").read_bytes() == before
    storage = optuna.storages.JournalStorage(
        optuna.storages.journal.JournalFileBackend(str(bench.path / "journal.log"))
    )
    optuna.create_study(storage=storage, study_name="nano", load_if_exists=True, direction="maximize")
    assert (bench.path / "journal.log").read_bytes() != before
