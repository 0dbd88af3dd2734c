"""Which sampler searches which space, and what cannot go together."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from phasegate.core.config.schema import Ref, ScoreSection, StudySection
from phasegate.core.study.choosing import choose
from phasegate.core.study.space import Parameter, Row, SearchSpace
from phasegate.registry.errors import ConfigError

RATE = Parameter(key="rate", low=0.0, high=1.0)


def rows(count: int) -> tuple[Row, ...]:
    orders = itertools.islice(map(">".join, itertools.permutations("abcdef")), count)
    return tuple(Row(name=order, order=order) for order in orders)


def section(**said: Any) -> StudySection:
    return StudySection(**{"scores": {"q": ScoreSection(), "r": ScoreSection(direction="minimize")}, **said})


@pytest.mark.parametrize(
    ("space", "sampler", "trials"),
    [
        (SearchSpace(rows=rows(60)), "exhaustive", 60),
        (SearchSpace(rows=rows(61)), "precedence", 60),
        (SearchSpace(rows=rows(100), listed=True), "exhaustive", 100),
        (SearchSpace(parameters=(RATE,)), "gp", 60),
        (SearchSpace(rows=rows(1), parameters=(RATE,)), "gp", 60),
        (SearchSpace(rows=rows(2), parameters=(RATE,)), "precedence", 60),
    ],
)
def test_auto_takes_what_fits_the_space(space: SearchSpace, sampler: str, trials: int) -> None:
    choice = choose(section(), space)
    assert (choice.sampler, choice.trials) == (sampler, trials)
    assert (choice.objectives, choice.directions) == (("q",), ("maximize",))


def test_objectives_are_those_that_are_named() -> None:
    choice = choose(section(objectives=("r", "q")), SearchSpace(rows=rows(2)))
    assert (choice.objectives, choice.directions) == (("r", "q"), ("minimize", "maximize"))


@pytest.mark.parametrize(
    ("said", "space", "words"),
    [
        ({}, SearchSpace(), "'orders' varies nothing"),
        ({"space": Ref(use="rows")}, SearchSpace(), "'rows' varies nothing"),
        ({"seeds": ()}, SearchSpace(rows=rows(2)), "study.seeds is empty"),
        ({"seeds": (1, 1)}, SearchSpace(rows=rows(2)), "the seed 1 twice"),
        ({"scores": {}}, SearchSpace(rows=rows(2)), "study.scores is empty"),
        ({"objectives": ("p",)}, SearchSpace(rows=rows(2)), r"'p', which is no score\..*Scores: q, r\."),
        ({"trials": 0}, SearchSpace(rows=rows(2)), "study.trials is 0"),
        ({"sampler": "precedence"}, SearchSpace(parameters=(RATE,)), "precedence chooses among orders"),
        ({"sampler": "exhaustive"}, SearchSpace(parameters=(RATE,)), "cannot try every value of 'rate'"),
        ({"prune": "median"}, SearchSpace(rows=rows(2)), "median cannot judge orders"),
        ({"prune": "median", "objectives": ("q", "r")}, SearchSpace(parameters=(RATE,)), "needs one objective"),
        ({}, SearchSpace(rows=(*rows(2), *rows(1))), "two rows of the search space have the name"),
        ({}, SearchSpace(rows=(Row(name="a", order="x"), Row(name="b", order="x"))), "have the order 'x'"),
    ],
)
def test_what_cannot_be_searched_is_refused_at_the_start(said: dict[str, Any], space: SearchSpace, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        choose(section(**said), space)
