"""The loop of a study, over points that are looked up instead of trained."""

from __future__ import annotations

import math
from typing import Any

import pytest
from optuna.trial import TrialState
from phasegate.core.config.schema import ScoreSection
from phasegate.core.run.interrupt import Interrupted
from phasegate.core.study.news import TrialNews
from phasegate.core.study.outcomes import outcomes_of
from phasegate.core.study.point import GateStopped, PointRequest
from phasegate.core.study.space import Parameter, Row, SearchSpace
from phasegate.registry.errors import ConfigError

LISTED = SearchSpace(
    rows=(Row(name="full", order="a>b>c"), Row(name="skip", order="a>c"), Row(name="late", order="b>a>c")), listed=True
)
RATE = SearchSpace(parameters=(Parameter(key="rate", low=0.0, high=1.0),))


def by_seed(request: PointRequest) -> dict[str, float | None]:
    """Full 1, skip 2, late 3, and a tenth of the seed."""
    assert request.row is not None
    return {"quality": {"full": 1.0, "skip": 2.0, "late": 3.0}[request.row.name] + request.seed / 10}


def by_rate(request: PointRequest) -> dict[str, float | None]:
    return {"quality": -((request.parameters["rate"] - 0.3) ** 2)}


def test_listed_rows_are_run_in_their_order_over_all_seeds_and_the_study_ends(bench: Any, fake: Any) -> None:
    carry = fake(score=by_seed)
    study = bench.run(bench.section(), LISTED, carry)
    assert [trial.user_attrs["row"] for trial in study.trials] == ["full", "skip", "late"]
    assert [trial.user_attrs["order"] for trial in study.trials] == ["a>b>c", "a>c", "b>a>c"]
    assert [trial.value for trial in study.trials] == pytest.approx([1.1, 2.1, 3.1])
    assert sorted(seed for name, _, seed in carry.done if name == "skip") == [0, 1, 2]


def test_every_seed_s_outcome_is_kept_with_its_trial(bench: Any, fake: Any) -> None:
    carry = fake(score=by_seed, margins=lambda phase, request: {"acc": -0.1, "gone": math.nan})
    trial = bench.run(bench.section(), LISTED, carry).trials[1]
    kept = outcomes_of(trial)
    assert list(kept) == [0, 1, 2]
    assert kept[2].outcome.scores == {"quality": 2.2} and kept[2].outcome.stages == ("a-2", "c-2")
    assert kept[2].margins == {"a:acc": -0.1, "a:gone": None, "c:acc": -0.1, "c:gone": None}


def test_trials_begin_at_different_seeds_so_that_workers_do_not_wait_for_each_other(bench: Any, fake: Any) -> None:
    carry = fake(score=by_seed)
    bench.run(bench.section(), LISTED, carry)
    assert [seed for _, _, seed in carry.done] == [0, 1, 2, 1, 2, 0, 2, 0, 1]


def test_a_study_that_is_done_does_nothing_more(bench: Any, fake: Any) -> None:
    bench.run(bench.section(), LISTED, fake(score=by_seed))
    again = fake(score=by_seed)
    assert len(bench.run(bench.section(), LISTED, again).trials) == 3
    assert again.done == []


def test_more_trials_can_be_asked_for_later(bench: Any, fake: Any) -> None:
    bench.run(bench.section(trials=1), LISTED, fake(score=by_seed))
    carry = fake(score=by_seed)
    bench.run(bench.section(trials=2), LISTED, carry)
    assert {name for name, _, _ in carry.done} == {"skip"}


def test_settings_are_drawn_under_their_dotted_keys(bench: Any, fake: Any) -> None:
    space = SearchSpace(
        parameters=(Parameter(key="phases.a.steps", low=1, high=9999), Parameter(key="kind", choices=("x", "y")))
    )
    carry = fake(score=lambda request: {"quality": float(request.parameters["phases.a.steps"])})
    study = bench.run(bench.section(sampler="random", trials=4, seeds=(0,)), space, carry)
    assert [dict(trial.params) for trial in study.trials] == [settings for _, settings, _ in carry.done]
    assert all(isinstance(trial.params["phases.a.steps"], int) for trial in study.trials)


@pytest.mark.parametrize("sampler", ["gp", "tpe", "nsga2", "random"])
def test_every_sampler_searches_parameters_with_gates_as_constraints(bench: Any, fake: Any, sampler: str) -> None:
    carry = fake(score=by_rate, margins=lambda phase, request: {"acc": request.parameters["rate"] - 0.5})
    study = bench.run(bench.section(sampler=sampler, trials=11, seeds=(0,)), RATE, carry)
    assert len(carry.done) == 11
    assert study.trials[-1].constraints.keys() == {"a:acc", "b:acc", "c:acc"}


@pytest.mark.parametrize("sampler", ["precedence", "gp", "tpe", "nsga2", "random"])
def test_every_sampler_searches_orders_whatever_phases_they_have(bench: Any, fake: Any, sampler: str) -> None:
    """A Gaussian process raises on trials with other constraints, and so rows of other phases get one for all."""
    carry = fake(score=by_seed, margins=lambda phase, request: {"acc": 0.2 if phase == "b" else -0.1})
    space = SearchSpace(rows=LISTED.rows)
    study = bench.run(bench.section(sampler=sampler, trials=12, seeds=(0,)), space, carry)
    assert {trial.user_attrs["row"]: dict(trial.constraints) for trial in study.trials} == {
        "full": {"gates": 0.2}, "skip": {"gates": -0.1}, "late": {"gates": 0.2},
    }  # fmt: skip
    assert len(carry.done) == 3


def test_a_gaussian_process_finds_the_best_that_the_gates_allow(bench: Any, fake: Any) -> None:
    carry = fake(
        score=lambda request: {"quality": request.parameters["rate"]},
        margins=lambda phase, request: {"acc": request.parameters["rate"] - 0.6},
    )
    study = bench.run(bench.section(trials=15, seeds=(0,)), RATE, carry)
    assert 0.55 < study.best_value <= 0.6


def test_constraints_are_the_worst_margins_over_seeds(bench: Any, fake: Any) -> None:
    carry = fake(score=by_rate, margins=lambda phase, request: {"acc": request.seed / 10 - 0.15})
    study = bench.run(bench.section(sampler="random", trials=1), RATE, carry)
    assert study.trials[0].constraints == pytest.approx({f"{phase}:acc": 0.05 for phase in "abc"})


def test_what_could_not_be_evaluated_is_never_a_pass(bench: Any, fake: Any) -> None:
    carry = fake(score=by_rate, margins=lambda phase, request: {"acc": math.nan if request.seed == 1 else -1.0})
    study = bench.run(bench.section(sampler="random", trials=1), RATE, carry)
    assert study.trials[0].constraints == {"a:acc": 1.0, "b:acc": 1.0, "c:acc": 1.0}
    with pytest.raises(ValueError, match="feasible"):
        _ = study.best_trial


@pytest.mark.parametrize("value", [None, math.nan, math.inf])
def test_a_trial_without_a_score_fails_with_the_reason_and_keeps_what_it_has(
    bench: Any, fake: Any, value: float | None
) -> None:
    carry = fake(score=lambda request: {"quality": value if request.seed == 1 else 1.0})
    study = bench.run(bench.section(), LISTED, carry)
    assert {trial.state for trial in study.trials} == {TrialState.FAIL}
    assert study.trials[0].user_attrs["reason"] == "seed 1 has no value of the score 'quality'"
    assert outcomes_of(study.trials[0])[0].outcome.scores == {"quality": 1.0}
    assert outcomes_of(study.trials[0])[1].outcome.scores == {"quality": None}
    assert len(carry.done) == 9


def test_several_objectives_are_told_in_their_order(bench: Any, fake: Any) -> None:
    scores = {"quality": ScoreSection(), "harm": ScoreSection(direction="minimize")}
    carry = fake(score=lambda request: {"harm": 0.25, **by_seed(request)})
    study = bench.run(bench.section(scores=scores, objectives=("harm", "quality")), LISTED, carry)
    assert [direction.name for direction in study.directions] == ["MINIMIZE", "MAXIMIZE"]
    assert study.trials[0].values == pytest.approx([0.25, 1.1])


def test_a_point_that_is_drawn_again_is_copied(bench: Any, fake: Any) -> None:
    space = SearchSpace(parameters=(Parameter(key="k", choices=(1, 2, 3)),))
    carry = fake(score=lambda request: {"quality": float(request.parameters["k"])})
    news: list[TrialNews] = []
    study = bench.run(bench.section(sampler="random", trials=20, seeds=(0,)), space, carry, show=news.append)
    assert sorted(settings["k"] for _, settings, _ in carry.done) == [1, 2, 3]
    copies = [trial for trial in study.trials if "copy_of" in trial.user_attrs]
    assert copies and all(trial.value == trial.params["k"] for trial in copies)
    assert all(study.trials[trial.user_attrs["copy_of"]].params == trial.params for trial in copies)
    assert "copied" in {one.state for one in news}


def test_a_sampled_study_of_few_points_ends_when_all_were_tried(bench: Any, fake: Any) -> None:
    carry = fake(score=by_seed)
    study = bench.run(bench.section(sampler="tpe", trials=50, seeds=(0,)), SearchSpace(rows=LISTED.rows), carry)
    assert len(carry.done) == 3 and len(study.trials) < 50
    assert study.trials[0].user_attrs["row"] == "full"


def test_rows_with_settings_are_told_apart_by_name(bench: Any, fake: Any) -> None:
    rows = (Row(name="plain", order="a>b"), Row(name="replay", order="a>b", set={"k": 1}))
    carry = fake(score=lambda request: {"quality": float(len(request.row.set))})
    study = bench.run(bench.section(seeds=(0,)), SearchSpace(rows=rows, listed=True), carry)
    assert [(trial.user_attrs["row"], trial.value) for trial in study.trials] == [("plain", 0.0), ("replay", 1.0)]


def stop_after_b(phase: str, request: PointRequest) -> None:
    if phase == "c" and request.row is not None and request.row.order.startswith("a>b>c") and not request.row.set:
        raise GateStopped("b", "gate acc of b failed")


def test_a_gate_that_ends_an_order_ends_all_that_begin_like_it_without_training(bench: Any, fake: Any) -> None:
    orders = ("a>b>c>d", "a>b>d>c", "a>b", "a>d>b>c", "b>a>c>d")
    rows = tuple(Row(name=order, order=order) for order in orders)
    rows += (Row(name="other settings", order="a>b>c>d", set={"k": 1}),)
    carry = fake(score=lambda request: {"quality": 1.0}, before=stop_after_b)
    study = bench.run(bench.section(gates="enforce", seeds=(0,)), SearchSpace(rows=rows, listed=True), carry)
    assert [name for name, _, _ in carry.done] == ["a>d>b>c", "b>a>c>d", "other settings"]
    assert [trial.state.name for trial in study.trials] == ["PRUNED"] * 3 + ["COMPLETE"] * 3
    assert [trial.user_attrs.get("stopped_after") for trial in study.trials[:3]] == ["b", "b", "b"]
    assert study.trials[0].user_attrs["reason"] == "gate acc of b failed"
    assert study.trials[1].user_attrs["skipped_for"] == 0
    assert study.trials[2].user_attrs["reason"] == "begins like trial 0, which a gate ended after a>b"


def test_a_sampled_study_of_orders_ends_when_only_failed_beginnings_are_left(bench: Any, fake: Any, rows: Any) -> None:
    space = SearchSpace(rows=rows(["a>b>c>d", "a>b>d>c", "b>a>c>d"]))
    carry = fake(score=lambda request: {"quality": 1.0}, before=stop_after_b)
    study = bench.run(bench.section(sampler="precedence", gates="enforce", seeds=(0,)), space, carry)
    assert sorted(trial.user_attrs["row"] for trial in study.trials) == ["a>b>c>d", "b>a>c>d"]


def test_the_margins_of_a_gate_that_ended_a_run_are_kept_as_constraints(bench: Any, fake: Any) -> None:
    def stop(phase: str, request: PointRequest) -> None:
        if phase == "b":
            raise GateStopped("a", "gate acc of a failed")

    carry = fake(score=by_rate, before=stop, margins=lambda phase, request: {"acc": 0.3})
    study = bench.run(bench.section(sampler="gp", gates="enforce", trials=2, seeds=(0,)), RATE, carry)
    assert [dict(trial.constraints) for trial in study.trials] == [{"a:acc": 0.3}] * 2


def test_the_median_prunes_parameters_at_phase_boundaries(bench: Any, fake: Any) -> None:
    rates = iter([0.1, 0.1, 0.1, 0.1, 0.1, 0.9])
    given: dict[float, float] = {}

    def margin(phase: str, request: PointRequest) -> dict[str, float]:
        rate = request.parameters["rate"]
        if rate not in given:
            given[rate] = next(rates)
        return {"acc": given[rate]}

    carry = fake(score=by_rate, margins=margin)
    section = bench.section(sampler="random", trials=6, seeds=(0,), prune="median")
    last = bench.run(section, RATE, carry).trials[-1]
    # Never after the first phase, which warms up.
    assert last.state == TrialState.PRUNED and last.user_attrs["stopped_after"] == "b"
    assert len(carry.done) == 5


def test_orders_are_never_pruned_by_the_median(bench: Any, fake: Any) -> None:
    with pytest.raises(ConfigError, match="median cannot judge orders"):
        bench.run(bench.section(prune="median"), LISTED, fake(score=by_seed))


def test_a_run_that_is_stopped_is_queued_again_with_the_seeds_that_it_has(bench: Any, fake: Any) -> None:
    count = iter(range(100))

    def stop() -> None:
        if len(carry.done) == 4 and next(count) == 0:
            raise Interrupted(130)

    carry = fake(score=by_seed)
    with pytest.raises(Interrupted):
        bench.run(bench.section(), LISTED, carry, stop=stop)
    study = bench.run(bench.section(), LISTED, carry)
    assert len(carry.done) == len({(name, seed) for name, _, seed in carry.done}) == 9
    complete = [trial for trial in study.trials if trial.state == TrialState.COMPLETE]
    assert sorted(trial.user_attrs["row"] for trial in complete) == ["full", "late", "skip"]
    broken = next(trial for trial in study.trials if trial.state == TrialState.FAIL)
    assert [trial.user_attrs.get("retry_of") for trial in complete].count(broken.number) == 1


def test_an_error_of_a_point_ends_the_study_and_leaves_the_point_to_be_done(bench: Any, fake: Any) -> None:
    def broken(phase: str, request: PointRequest) -> None:
        if request.row is not None and request.row.name == "skip":
            raise ConfigError("no such key")

    with pytest.raises(ConfigError, match="no such key") as error:
        bench.run(bench.section(), LISTED, fake(score=by_seed, before=broken))
    assert error.value.__notes__ == ["in trial 1 of the study nano; it is queued again"]
    carry = fake(score=by_seed)
    bench.run(bench.section(), LISTED, carry)
    assert {name for name, _, _ in carry.done} == {"late", "skip"}


def test_the_news_say_what_happens(bench: Any, fake: Any) -> None:
    news: list[TrialNews] = []
    bench.run(bench.section(trials=1), LISTED, fake(score=by_seed), show=news.append)
    assert [one.words for one in news] == ["trial 0 [full] running", "trial 0 [full] complete: 1.1; 1 of 1"]
