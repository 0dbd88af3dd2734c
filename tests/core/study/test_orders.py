"""Orders of phases: which there are, and how many are too many."""

from __future__ import annotations

import pytest
from phasegate.core.study.orders import is_valid, orders_of
from phasegate.core.study.space import Curriculum
from phasegate.registry.errors import ConfigError


def curriculum(phases: str, requires: dict[str, str] | None = None) -> Curriculum:
    """Phases by letters, each providing its own letter."""
    needs = requires or {}
    return Curriculum(
        phases=tuple(phases),
        uses={phase: phase for phase in phases},
        requires={phase: tuple(needs.get(phase, "")) for phase in phases},
        provides={phase: (phase,) for phase in phases},
    )


def test_free_phases_have_all_permutations_the_written_one_first() -> None:
    assert orders_of(curriculum("abc")) == ("a>b>c", "a>c>b", "b>a>c", "b>c>a", "c>a>b", "c>b>a")


def test_ordered_subsets_of_six_phases_are_1956() -> None:
    # 6 + 30 + 120 + 360 + 720 + 720
    assert len(orders_of(curriculum("abcdef"), subsets=True)) == 1956


def test_a_phase_comes_after_what_it_requires() -> None:
    assert orders_of(curriculum("abc", {"c": "a"})) == ("a>b>c", "a>c>b", "b>a>c")
    assert orders_of(curriculum("abc", {"c": "ab", "b": "a"}), subsets=True) == ("a", "a>b", "a>b>c")


def test_the_linear_extensions_of_the_notes_are_60() -> None:
    # 1<2, 1<3, 2<3, 4<6: 6!/(3!·2!) = 60.
    assert len(orders_of(curriculum("123456", {"2": "1", "3": "12", "6": "4"}))) == 60


def test_a_written_order_that_is_not_allowed_is_left_out() -> None:
    assert orders_of(curriculum("ba", {"b": "a"})) == ("a>b",)
    assert orders_of(curriculum("ba", {"b": "a"}), invalid=True) == ("b>a", "a>b")


def test_first_and_last_hold_their_places() -> None:
    assert len(orders_of(curriculum("123456"), first="1")) == 120
    assert len(orders_of(curriculum("123456"), first="1", last="6")) == 24
    assert orders_of(curriculum("abc"), first="b", last="a", subsets=True) == ("b>a", "b>c>a")
    assert orders_of(curriculum("abc"), last="a", subsets=True) == ("a", "b>a", "b>c>a", "c>a", "c>b>a")


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ({"first": "d"}, r"first: the experiment has no phase 'd'.*Phases: a, b, c\."),
        ({"first": "a", "last": "a"}, "both hold the phase 'a'"),
        ({"first": "c"}, "held first requires"),
        ({"last": "a"}, r"phase c requires a, which no phase before it can provide"),
    ],
)
def test_places_that_cannot_be_held_are_refused(said: dict[str, str], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        orders_of(curriculum("abc", {"c": "a"}), **said)  # type: ignore[arg-type]


def test_more_orders_than_a_study_can_list_are_refused_without_counting_them_all() -> None:
    # 20! orders would take longer than the universe has lasted.
    with pytest.raises(ConfigError, match=r"20 phases have more than 10,000 orders.*first or last"):
        orders_of(curriculum("abcdefghijklmnopqrst"))


def test_phases_that_no_order_can_satisfy_are_found_without_trying_them_all() -> None:
    with pytest.raises(ConfigError, match="phase t requires z, which no phase before it can provide"):
        orders_of(curriculum("abcdefghijklmnopqrst", {"t": "z"}))


def test_an_order_is_valid_when_all_that_it_needs_came_before() -> None:
    of = curriculum("abc", {"c": "ab"})
    assert is_valid(("b", "a", "c"), of)
    assert not is_valid(("a", "c", "b"), of)
