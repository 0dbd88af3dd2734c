"""What orders share, held against the counts of the notes (C.5)."""

from __future__ import annotations

import io
import itertools

import pytest
from phasegate.core.study.tree import PrefixTree
from rich.console import Console

FULL = tuple("123456")
PAPER = ("123456", "13456", "123546", "125346", "13", "124356")


def swapped(place: int) -> tuple[str, ...]:
    order = list(FULL)
    order[place], order[place + 1] = order[place + 1], order[place]
    return tuple(order)


SWAPS = [swapped(place) for place in range(5)]
LEFT_OUT = [FULL[:place] + FULL[place + 1 :] for place in range(6)]
MOVED = {
    (*rest[:place], phase, *rest[place:])
    for phase in FULL
    for rest in [tuple(one for one in FULL if one != phase)]
    for place in range(6)
}
STUDIES = {
    "all permutations": (list(itertools.permutations(FULL)), 720, 4320, 1956),
    "all ordered subsets": ([o for n in range(1, 7) for o in itertools.permutations(FULL, n)], 1956, 9786, 1956),
    "all subsets in one order": ([o for n in range(1, 7) for o in itertools.combinations(FULL, n)], 63, 192, 63),
    "permutations, 1 first": ([o for o in itertools.permutations(FULL) if o[0] == "1"], 120, 720, 326),
    "1 first, 6 last": ([o for o in itertools.permutations(FULL) if o[0] + o[5] == "16"], 24, 144, 89),
    "the six variants of Paper A": ([tuple(order) for order in PAPER], 6, 31, 21),
    "full and five swaps": ([FULL, *SWAPS], 6, 36, 26),
    "full, swaps and leave-one-out": ([FULL, *SWAPS, *LEFT_OUT], 12, 66, 36),
    "full and its insertions": ([FULL, *sorted(MOVED - {FULL})], 26, 156, 106),
}


@pytest.mark.parametrize("name", STUDIES)
def test_trainings_with_and_without_sharing_are_those_of_the_notes(name: str) -> None:
    orders, count, naive, shared = STUDIES[name]
    tree = PrefixTree(orders)
    assert (len(orders), tree.naive, tree.shared) == (count, naive, shared)


def test_each_variant_of_the_paper_brings_the_trainings_that_the_notes_list() -> None:
    tree: PrefixTree[str] = PrefixTree()
    foreseen, brought = [], []
    for order in PAPER:
        foreseen.append(tree.new(order))
        brought.append(tree.add(order))
    assert foreseen == brought == [6, 4, 3, 4, 0, 4]


def test_phases_of_unequal_cost_are_weighed() -> None:
    # The paper's six variants with phase 1 = 10, then 4, 4, 3, 2, 2.
    costs = dict(zip(FULL, (10, 4, 4, 3, 2, 2), strict=True))
    assert PrefixTree([tuple(order) for order in PAPER]).weigh(lambda phase: costs[phase]) == (135, 65)


def test_depth_first_finishes_a_beginning_before_it_leaves_it() -> None:
    tree = PrefixTree.of_orders(["a>b>c", "b>a", "a>c", "a>b", "b>c", "a>b>d"])
    assert [">".join(tree.sequences[number]) for number in tree.visit()] == [
        "a>b", "a>b>c", "a>b>d", "a>c", "b>a", "b>c",
    ]  # fmt: skip


def test_a_sequence_that_comes_twice_is_visited_twice() -> None:
    assert PrefixTree.of_orders(["a>b", "b", "a>b"]).visit() == [0, 2, 1]


def test_stages_that_the_store_has_are_not_counted() -> None:
    tree = PrefixTree([("d1", "d2"), ("d1", "d3")])
    assert tree.missing(lambda beginning: beginning[-1] in {"d1", "d3"}) == 1


def test_same_names_under_other_recipes_are_other_trainings() -> None:
    assert PrefixTree([(1, 2), (3, 2)]).shared == 4


def text(tree: PrefixTree[str], **options: int) -> list[str]:
    console = Console(file=io.StringIO(), width=100)
    console.print(tree.draw("orders", ends=lambda number: f"row {number}", **options))
    assert isinstance(console.file, io.StringIO)
    return [line.rstrip() for line in console.file.getvalue().splitlines()]


def test_the_drawing_puts_phases_in_one_line_up_to_where_orders_part_or_end() -> None:
    assert text(PrefixTree.of_orders(["a>b>c>d", "a>b", "a>b>d>c", "e"])) == [
        "orders",
        "├── a > b  [row 1]",
        "│   ├── c > d  [row 0]",
        "│   └── d > c  [row 2]",
        "└── e  [row 3]",
    ]


def test_a_drawing_that_is_too_long_says_what_it_leaves_out() -> None:
    lines = text(PrefixTree.of_orders(map(">".join, itertools.permutations("abcdef"))), limit=5)
    assert len(lines) == 7 and lines[-1].endswith("more trainings")
