"""Search spaces: what a study of a curriculum varies, as its options say."""

from __future__ import annotations

from typing import Any

import pytest
from phasegate.core.study.space import Curriculum, SearchSpace
from phasegate.core.study.tree import PrefixTree
from phasegate.registry.components import PhaseSpec
from phasegate.registry.errors import ConfigError
from phasegate.registry.plugins import Plugins

REGISTRY = Plugins.load(()).components()
SIX = ("foundation", "specialization", "alignment", "safety", "metacognition", "optimization")


def curriculum(**uses: str) -> Curriculum:
    """A curriculum of built-in phases; by default the six under their own names."""
    named = uses or {name: name for name in SIX}
    specs: dict[str, Any] = {name: REGISTRY.get("phase", use).component for name, use in named.items()}
    assert all(isinstance(spec, PhaseSpec) for spec in specs.values())
    return Curriculum(
        phases=tuple(named),
        uses=named,
        requires={name: spec.requires for name, spec in specs.items()},
        provides={name: spec.provides for name, spec in specs.items()},
    )


def space_of(use: str, options: dict[str, Any], of: Curriculum | None = None) -> SearchSpace:
    space: SearchSpace = REGISTRY.build("search-space", use, options).space(of or curriculum())
    return space


def test_the_paper_s_table_has_six_rows_with_the_orders_of_section_8_1() -> None:
    space = space_of("paper-ablation", {})
    short = {name: str(number) for number, name in enumerate(SIX, start=1)}
    assert space.listed and space.parameters == ()
    assert {row.name: "-".join(short[phase] for phase in row.phases) for row in space.rows} == {
        "full": "1-2-3-4-5-6",
        "skip-2": "1-3-4-5-6",
        "5-before-4": "1-2-3-5-4-6",
        "5-before-3": "1-2-5-3-4-6",
        "two-phase": "1-3",
        "4-before-3": "1-2-4-3-5-6",
    }


def test_the_paper_s_table_trains_31_phases_and_21_when_they_are_shared() -> None:
    tree = PrefixTree.of_orders(row.order for row in space_of("paper-ablation", {}).rows)
    assert (tree.naive, tree.shared) == (31, 21)


def test_the_paper_s_table_finds_the_phases_by_their_components() -> None:
    named = curriculum(
        a="foundation", b="specialization", c="alignment", d="safety", e="metacognition", f="optimization"
    )
    assert space_of("paper-ablation", {}, named).rows[3].order == "a>b>e>c>d>f"


def test_the_paper_s_table_says_which_phase_an_experiment_lacks() -> None:
    with pytest.raises(ConfigError, match=r"no phase that uses safety: foundation .*Take the space 'rows'"):
        space_of("paper-ablation", {}, curriculum(**{name: name for name in SIX if name != "safety"}))


def test_the_paper_s_table_takes_further_rows() -> None:
    extra = {"order": "foundation>alignment", "set": {"phases.alignment.x": 1}, "note": "with replay"}
    last = space_of("paper-ablation", {"rows": {"more": extra}}).rows[-1]
    assert (last.name, last.order, dict(last.set), last.note) == (
        "more", "foundation>alignment", {"phases.alignment.x": 1}, "with replay",
    )  # fmt: skip


def test_orders_are_those_that_requirements_allow_and_the_written_one_is_first() -> None:
    # Foundation first; specialization anywhere after it; alignment before safety, metacognition and optimization:
    # the three last in 6 orders, specialization in any of 5 places.
    rows = space_of("orders", {}).rows
    assert len(rows) == 30
    assert rows[0].order == ">".join(SIX) and rows[0].name == rows[0].order


def test_orders_may_break_requirements_where_that_is_asked() -> None:
    assert len(space_of("orders", {"invalid": True}).rows) == 720
    assert len(space_of("orders", {"invalid": True, "subsets": True}).rows) == 1956


def test_an_option_that_orders_do_not_have_is_refused_with_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"no option 'subset'. Did you mean 'subsets'"):
        space_of("orders", {"subset": True})


def test_rows_are_run_as_listed_and_an_order_left_out_is_the_written_one() -> None:
    space = space_of("rows", {"rows": {"b": {}, "a": {"order": "foundation > alignment"}}})
    assert space.listed
    assert [(row.name, row.order) for row in space.rows] == [("b", ">".join(SIX)), ("a", "foundation>alignment")]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({}, "has no rows"),
        ({"rows": {"a": {"order": "foundation>aligment"}}}, "row 'a' .* 'aligment' .*Did you mean 'alignment'"),
        ({"rows": {"a": {"order": "foundation>foundation"}}}, "names 'foundation' twice"),
    ],
)
def test_rows_that_cannot_be_run_are_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        space_of("rows", options)


def test_a_range_is_one_of_whole_numbers_where_it_is_written_so() -> None:
    keys = {"a": {"low": 0, "high": 1}, "b": {"low": 0.0, "high": 1.0}, "c": {"choices": ["x", 1]}}
    whole, real, choice = space_of("parameters", {"keys": keys}).parameters
    assert isinstance(whole.low, int) and isinstance(real.low, float)
    assert choice.choices == ("x", 1)


def test_parameters_hold_the_order_that_is_said() -> None:
    keys = {"a": {"low": 0, "high": 1}}
    assert space_of("parameters", {"keys": keys}).rows == ()
    held = space_of("parameters", {"keys": keys, "order": "foundation>alignment"})
    assert [row.order for row in held.rows] == ["foundation>alignment"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({}, "varies nothing"),
        ({"keys": {"a": {}}}, "'a' has nothing to choose from"),
        ({"keys": {"a": {"low": 1, "hihg": 2}}}, "no option 'keys.a.hihg'. Did you mean 'high'"),
        ({"keys": {"a": {"low": 2, "high": 1}}}, "low must lie below high"),
    ],
)
def test_parameters_that_nothing_can_be_chosen_from_are_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        space_of("parameters", options)
