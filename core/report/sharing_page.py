"""What orders share: trainings saved, and the tree of their beginnings."""

from __future__ import annotations

from collections.abc import Iterable

from .blocks import Block, Node, Prose, Table, Tree, cells
from .numbers import NOT_RECORDED, count, number, several
from .study_facts import StudyFacts

_DRAWN = 80  # nodes; a larger tree is told, not drawn


def sharing_blocks(study: StudyFacts) -> Iterable[Block]:
    """Trainings and minutes with and without sharing, and the prefix tree of the orders."""
    found = study.sharing
    if found is not None:
        minutes = ("minutes of training", "minutes that sharing saved")
        spent = zip(minutes, (found.minutes, found.minutes_saved), strict=True)
        yield Table(
            caption="Trainings of single phases, over all orders and seeds",
            columns=("what", "number"),
            rows=(
                cells("without sharing", count(found.naive)),
                cells("with every beginning trained once", count(found.shared)),
                cells("trained in this study", count(found.trained)),
                cells("taken from the store", count(found.reused)),
                *(cells(name, NOT_RECORDED if value is None else number(value, 1)) for name, value in spent),
            ),
        )
    orders = list(dict.fromkeys(row.order for row in study.rows))
    nodes = prefix_tree([order.split(">") for order in orders])
    if len(orders) < 2:
        return
    if len(nodes) > _DRAWN:
        yield Prose(paragraphs=(f"The tree of beginnings has {len(nodes)} trainings and is too large to draw.",))
        return
    naive = sum(len(order.split(">")) for order in orders)
    yield Tree(
        title="Which beginnings do the orders share?",
        told=f"For one seed, {several(len(orders), 'order')} have {naive} phases, of which {len(nodes)} are different "
        "trainings: boxes that branch are trained once. A thick box ends an order.",
        nodes=nodes,
    )


def prefix_tree(orders: list[list[str]]) -> tuple[Node, ...]:
    """The tree of the orders' beginnings; every leaf has a row of its own and a parent stands amid its children."""
    places: dict[tuple[str, ...], int] = {}
    ends = {tuple(order) for order in orders}
    for order in orders:
        for depth in range(1, len(order) + 1):
            places.setdefault(tuple(order[:depth]), len(places))
    rows: dict[tuple[str, ...], float] = {}

    def lay(prefix: tuple[str, ...], row: int) -> int:
        children = [key for key in places if len(key) == len(prefix) + 1 and key[:-1] == prefix]
        for child in children:
            row = lay(child, row)
        if not children:
            rows[prefix] = row
            return row + 1
        rows[prefix] = (rows[children[0]] + rows[children[-1]]) / 2
        return row

    lay((), 0)
    return tuple(
        Node(
            name=key[-1],
            depth=len(key) - 1,
            row=rows[key],
            parent=places.get(key[:-1]),
            leaf=key in ends,
        )
        for key in places
    )
