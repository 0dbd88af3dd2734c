"""Search spaces with one thing wrong each, caught by the check that is named beside it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from phasegate.core.study.space import Curriculum, Parameter, Row, SearchSpace
from phasegate.registry.components import SearchSpaceSpec


class Unknown:
    def space(self, curriculum: Curriculum) -> SearchSpace:
        return SearchSpace(rows=(Row(name="one", order="foundation>refinement"),))


class Twice:
    """Two rows that mean the same."""

    def space(self, curriculum: Curriculum) -> SearchSpace:
        return SearchSpace(rows=(Row(name="one", order="foundation"), Row(name="two", order="foundation")))


class Renaming:
    """Rows that are another's when they are asked for again."""

    asked = 0

    def space(self, curriculum: Curriculum) -> SearchSpace:
        Renaming.asked += 1
        extra = {"seed": Renaming.asked}
        rows = [Row(name=f"row-{Renaming.asked}-{phase}", order=phase, set=extra) for phase in curriculum.phases]
        return SearchSpace(rows=tuple(rows))


class Row2(Row):
    """A row whose key nothing finds again."""

    @property
    def key(self) -> str:
        return f"{self.order} {id(object())} {next(_COUNT)}"


_COUNT = iter(range(10**9))


class Unfindable:
    def space(self, curriculum: Curriculum) -> SearchSpace:
        return SearchSpace(
            rows=tuple(Row2(name=phase, order=phase) for phase in curriculum.phases),
            parameters=(Parameter(key="seed", low=0, high=3),),
        )


BROKEN = {
    "valid": (Unknown, "'refinement', which is no phase"),
    "points": (Twice, "Of 2 points 1 are different"),
    "suggestions": (Unfindable, "No row belongs"),
    "replay": (Renaming, "cannot be drawn again"),
    "determinism": (Renaming, "another space"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_space_is_caught(name: str, failure: Callable[..., str], spec_of: Callable[..., Any]) -> None:
    target, said = BROKEN[name]
    assert said in failure(spec_of(SearchSpaceSpec, target), name)


def test_every_check_of_spaces_catches_something(names: Callable[[str], set[str]]) -> None:
    assert set(BROKEN) == names("search-space")
