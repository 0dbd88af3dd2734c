"""The sampler for orders, on landscapes whose best order is known."""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Callable

import numpy as np
import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution
from optuna.samplers import BaseSampler, RandomSampler, TPESampler
from optuna.trial import TrialState, create_trial
from phasegate.core.study.precedence import PrecedenceSampler, features
from phasegate.core.study.samplers import SeededByTrial
from phasegate.core.study.tree import PrefixTree

ORDERS = [">".join(order) for order in itertools.permutations("abcdef")]
CANDIDATES = {order: order for order in ORDERS}
SPACE = CategoricalDistribution(ORDERS)


def landscape(seed: int) -> Callable[[str], float]:
    """The sum of what every wrong pair costs, for a right order that is drawn by lot (15 costs, 720 orders)."""
    rng = np.random.default_rng(seed)
    costs, right = rng.exponential(size=(6, 6)), dict(zip("abcdef", rng.permutation(6), strict=True))

    def score(order: str) -> float:
        places = [right[phase] for phase in order.split(">")]
        return -sum(costs[second, first] for first, second in itertools.combinations(places, 2) if first > second)

    return score


def trials_to_best(sampler: BaseSampler, score: Callable[[str], float], cap: int) -> tuple[int, int]:
    """Trials until the best order was tried (``cap`` if it was not), and the phases trained for them."""
    best = max(map(score, ORDERS))
    study = optuna.create_study(direction="maximize", sampler=sampler)
    while len(study.trials) < cap and not (study.trials and study.best_value == best):
        trial = study.ask({"order": SPACE})
        study.tell(trial, score(trial.params["order"]))
    return len(study.trials), PrefixTree.of_orders(trial.params["order"] for trial in study.trials).shared


@pytest.fixture(autouse=True, scope="module")
def quiet() -> None:
    optuna.logging.set_verbosity(optuna.logging.ERROR)


def test_features_are_one_presence_and_precedence() -> None:
    # 1; a, b, c there; a before b, a before c, b before c.
    found = features([("a", "b", "c"), ("c", "a"), ("b",)], ("a", "b", "c"))
    assert found.tolist() == [[1, 1, 1, 1, 1, 1, 1], [1, 1, -1, 1, 0, -1, 0], [1, -1, 1, -1, 0, 0, 0]]


def test_the_best_of_720_orders_is_found_far_sooner_than_by_tpe_or_by_chance() -> None:
    found = {
        "precedence": [trials_to_best(PrecedenceSampler(CANDIDATES, seed=s), landscape(s), 100)[0] for s in range(9)],
        "tpe": [trials_to_best(TPESampler(seed=s, multivariate=False), landscape(s), 70)[0] for s in range(3)],
        "random": [trials_to_best(RandomSampler(seed=s), landscape(s), 150)[0] for s in range(3)],
    }
    median = {name: statistics.median(trials) for name, trials in found.items()}
    # 16 in 30 seeds of the notes; there TPE over one categorical needs 449 and chance 698.
    assert median["precedence"] <= 25 and max(found["precedence"]) < 60
    assert median["tpe"] > 2 * median["precedence"] and median["random"] > 4 * median["precedence"]


def test_a_landscape_that_precedence_cannot_express_does_not_trap_the_sampler() -> None:
    """Costs of neighbours only. A model whose noise is fixed and small gets stuck here."""

    def neighbours(seed: int) -> Callable[[str], float]:
        costs = np.random.default_rng(seed).exponential(size=(6, 6))
        return lambda order: (
            -sum(costs["abcdef".index(a), "abcdef".index(b)] for a, b in itertools.pairwise(order[::2]))
        )

    found = [trials_to_best(PrecedenceSampler(CANDIDATES, seed=s), neighbours(s), 111)[0] for s in range(5)]
    assert statistics.median(found) <= 110


def test_what_is_trained_already_is_preferred() -> None:
    phases = {
        aware: statistics.median(
            trials_to_best(PrecedenceSampler(CANDIDATES, seed=s, cost_aware=aware), landscape(s), 100)[1]
            for s in range(7)
        )
        for aware in (True, False)
    }
    assert phases[True] < phases[False]


def test_no_order_is_tried_twice_and_a_small_space_is_emptied() -> None:
    orders = [">".join(order) for order in itertools.permutations("abc")]
    study = optuna.create_study(sampler=PrecedenceSampler({one: one for one in orders}, seed=3))
    for _ in orders:
        trial = study.ask({"order": CategoricalDistribution(orders)})
        study.tell(trial, float(len(trial.params["order"])))
    assert sorted(trial.params["order"] for trial in study.trials) == sorted(orders)


def test_orders_that_are_running_are_left_to_those_who_run_them() -> None:
    study = optuna.create_study(sampler=PrecedenceSampler({"a>b": "a>b", "b>a": "b>a"}, seed=0))
    drawn = [study.ask({"order": CategoricalDistribution(["a>b", "b>a"])}).params["order"] for _ in range(2)]
    assert sorted(drawn) == ["a>b", "b>a"]


def test_the_first_trial_takes_the_order_that_is_believed_in() -> None:
    study = optuna.create_study(sampler=PrecedenceSampler(CANDIDATES, prior="f>e>d>c>b>a"))
    assert study.ask({"order": SPACE}).params["order"] == "f>e>d>c>b>a"


def test_draws_follow_from_the_seed_and_the_trial_s_number_only() -> None:
    def second(seed: int, draws_before: int) -> str:
        sampler = PrecedenceSampler(CANDIDATES, seed=seed)
        study = optuna.create_study(sampler=sampler)
        study.tell(study.ask({"order": SPACE}), 1.0)
        for _ in range(draws_before):
            sampler.sample_relative(study, study.trials[0], {})
        order: str = study.ask({"order": SPACE}).params["order"]
        return order

    assert second(0, 0) == second(0, 5)
    assert len({second(seed, 0) for seed in range(4)}) > 1


def test_a_failed_beginning_is_never_begun_again() -> None:
    study = optuna.create_study(direction="maximize", sampler=PrecedenceSampler(CANDIDATES, seed=1))
    study.add_trial(
        create_trial(
            state=TrialState.PRUNED, params={"order": "a>b>c>d>e>f"}, distributions={"order": SPACE},
            user_attrs={"failed_beginning": ["{}", "a>b"]},
        )
    )  # fmt: skip
    for _ in range(60):
        trial = study.ask({"order": SPACE})
        assert not trial.params["order"].startswith("a>b")
        study.tell(trial, float(trial.params["order"].index("b")))


def test_an_order_that_was_broken_off_is_drawn_again() -> None:
    study = optuna.create_study(sampler=PrecedenceSampler({"a>b": "a>b", "b>a": "b>a"}, seed=0))
    for _ in range(2):
        study.tell(study.ask({"order": CategoricalDistribution(["a>b", "b>a"])}), state=TrialState.FAIL)
    assert study.ask({"order": CategoricalDistribution(["a>b", "b>a"])}).params["order"] in ("a>b", "b>a")


def test_smaller_is_better_where_the_study_minimises() -> None:
    score = landscape(5)
    study = optuna.create_study(direction="minimize", sampler=PrecedenceSampler(CANDIDATES, seed=5))
    for _ in range(60):
        trial = study.ask({"order": SPACE})
        study.tell(trial, -score(trial.params["order"]))
    assert study.best_value == -max(map(score, ORDERS))


def test_two_objectives_and_other_parameters_are_searched_too() -> None:
    score, other = landscape(1), landscape(2)
    sampler = PrecedenceSampler(CANDIDATES, seed=1, independent=TPESampler(seed=1, multivariate=False))
    study = optuna.create_study(directions=["maximize", "maximize"], sampler=sampler)
    for _ in range(40):
        trial = study.ask({"order": SPACE, "rate": FloatDistribution(0, 1)})
        order = trial.params["order"]
        study.tell(trial, [score(order), other(order) - trial.params["rate"]])
    assert max(trial.values[0] for trial in study.trials) > np.quantile([score(order) for order in ORDERS], 0.95)
    assert max(trial.values[1] for trial in study.trials) > np.quantile([other(order) for order in ORDERS], 0.9) - 1


def test_orders_of_different_length_can_be_compared() -> None:
    orders = [">".join(order) for n in (1, 2, 3) for order in itertools.permutations("abc", n)]
    study = optuna.create_study(direction="maximize", sampler=PrecedenceSampler({o: o for o in orders}, seed=0))
    for _ in range(8):
        trial = study.ask({"order": CategoricalDistribution(orders)})
        # Best without c, and b before a.
        order = trial.params["order"]
        study.tell(trial, ("a" in order) + ("b" in order) - 2 * ("c" in order) + (order.find("b") < order.find("a")))
    assert study.best_params["order"] == "b>a"


def test_two_workers_with_one_seed_draw_differently_and_a_third_like_neither() -> None:
    # A plain sampler in two processes replays one stream: both propose the same points.
    plain = [optuna.create_study(sampler=RandomSampler(seed=0)).ask({"x": FloatDistribution(0, 1)}) for _ in range(2)]
    assert plain[0].params == plain[1].params
    storage = optuna.storages.InMemoryStorage()
    optuna.create_study(storage=storage, study_name="one")
    drawn = []
    for _ in range(3):
        sampler = SeededByTrial(lambda seed: RandomSampler(seed=seed))
        worker = optuna.load_study(study_name="one", storage=storage, sampler=sampler)
        drawn.append(worker.ask({"x": FloatDistribution(0, 1)}).params["x"])
    assert len(set(drawn)) == 3
