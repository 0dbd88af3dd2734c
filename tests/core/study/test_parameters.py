"""Parameters of a study: what can be chosen, and what a grid of them is."""

from __future__ import annotations

import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from phasegate.core.study.parameters import check_parameters, distributions, grid, point_key, size_of
from phasegate.core.study.space import Parameter, Row, SearchSpace
from phasegate.registry.errors import ConfigError

AB = (Row(name="one", order="a>b"), Row(name="two", order="b>a"))


def test_every_kind_of_parameter_has_its_distribution() -> None:
    space = SearchSpace(
        rows=AB,
        parameters=(
            Parameter(key="rate", low=1e-4, high=1e-2, log=True),
            Parameter(key="steps", low=10, high=45, step=10),
            Parameter(key="share", low=0.0, high=1.0, step=0.3),
            Parameter(key="kind", choices=("x", None, 3)),
        ),
    )
    found = distributions(space)
    assert found["order"] == CategoricalDistribution(["a>b", "b>a"])
    assert found["rate"] == FloatDistribution(1e-4, 1e-2, log=True)
    assert found["steps"] == IntDistribution(10, 40, step=10)
    assert isinstance(found["share"], FloatDistribution) and found["share"].high == 0.9
    assert found["kind"] == CategoricalDistribution(["x", None, 3])


def test_one_row_leaves_no_order_to_draw() -> None:
    assert distributions(SearchSpace(rows=AB[:1], parameters=(Parameter(key="k", choices=(1, 2)),))).keys() == {"k"}


def test_a_row_that_sets_more_is_another_choice_than_its_order() -> None:
    rows = (AB[0], Row(name="replay", order="a>b", set={"k": 1}))
    assert distributions(SearchSpace(rows=rows))["order"] == CategoricalDistribution(["a>b", "a>b [replay]"])


def test_a_grid_has_every_setting_under_every_row() -> None:
    space = SearchSpace(rows=AB, parameters=(Parameter(key="k", low=1, high=3), Parameter(key="c", choices=("x", "y"))))
    points = list(grid(space))
    assert len(points) == size_of(space) == 12
    assert points[0] == {"order": "a>b", "k": 1, "c": "x"} and points[-1] == {"order": "b>a", "k": 3, "c": "y"}


def test_a_grid_has_the_values_that_a_trial_may_draw() -> None:
    space = SearchSpace(parameters=(Parameter(key="k", low=0.0, high=1.0, step=0.25),))
    found = distributions(space)["k"]
    values = [point["k"] for point in grid(space)]
    assert values == [0.0, 0.25, 0.5, 0.75, 1.0]
    assert isinstance(found, FloatDistribution) and values[-1] == found.high


def test_steps_are_decimal_so_that_none_is_lost_to_rounding() -> None:
    # 3 * 0.3 is 0.8999999999999999 in binary, from which Optuna would go down to 0.6.
    space = SearchSpace(parameters=(Parameter(key="k", low=0.0, high=1.0, step=0.3),))
    assert [point["k"] for point in grid(space)] == [0.0, 0.3, 0.6, 0.9]


def test_a_range_without_steps_has_no_grid() -> None:
    space = SearchSpace(parameters=(Parameter(key="rate", low=0.0, high=1.0),))
    assert size_of(space) is None
    with pytest.raises(ConfigError, match="exhaustive cannot try every value of 'rate'; give it a step"):
        list(grid(space))


def test_a_grid_that_nobody_can_run_is_refused() -> None:
    with pytest.raises(ConfigError, match="would run 1,000,000 points"):
        list(grid(SearchSpace(parameters=tuple(Parameter(key=key, low=1, high=1000) for key in "ab"))))


@pytest.mark.parametrize(
    ("parameter", "words"),
    [
        (Parameter(key="k"), "nothing to choose from"),
        (Parameter(key="k", low=1.0), "nothing to choose from"),
        (Parameter(key="k", low=1.0, high=1.0), "low must lie below high"),
        (Parameter(key="k", low=0.0, high=float("inf")), "low must lie below high"),
        (Parameter(key="k", low=0.0, high=1.0, log=True), "low must lie above 0"),
        (Parameter(key="k", low=1, high=9, log=True, step=2), "takes no step"),
        (Parameter(key="k", low=1, high=9, step=20), "step 20"),
        (Parameter(key="k", low=1, high=2, choices=(1,)), "choices and a range"),
        (Parameter(key="k", choices=((1, 2),)), "choices are numbers, words"),
        (Parameter(key="k", choices=(1, True)), "two choices that equal True"),
        (Parameter(key="order", choices=(1, 2)), "varies 'order' twice"),
    ],
)
def test_what_nothing_can_be_chosen_from_is_refused(parameter: Parameter, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        check_parameters([parameter])


def test_a_point_is_the_same_in_whatever_order_it_was_drawn() -> None:
    assert point_key({"b": 1, "a": 0.5}) == point_key({"a": 0.5, "b": 1})
    assert point_key({"a": 1}) != point_key({"a": True})
