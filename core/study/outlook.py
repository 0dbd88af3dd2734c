"""What a study would train: its stages with and without sharing, and those that the store already has."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from .definition import Definition
from .point import PointRequest
from .tree import PrefixTree

if TYPE_CHECKING:
    from .carrying import Carrier

LOOKED_UP = 60  # points up to which every stage is looked for in the store


@dataclass(frozen=True, slots=True, kw_only=True)
class Outlook:
    """Points (rows by seeds), trainings without and with sharing, and how many of the latter the store has (None where
    there are too many points to look). ``flops`` are those of training without and with sharing, None as well then.
    """

    points: int
    naive: int
    shared: int
    stored: int | None
    flops: tuple[float, float] | None
    tree: PrefixTree[str]


def outlook(definition: Definition, carrier: Carrier) -> Outlook:
    """Count what a study of rows would train; for one of parameters, what one point trains."""
    rows, seeds = definition.space.rows, definition.section.seeds
    tree: PrefixTree[str] = PrefixTree.of_orders(row.order for row in rows)
    points = max(1, len(rows)) * len(seeds)
    if points > LOOKED_UP or definition.space.parameters:
        orders = tree if rows else PrefixTree.of_orders([">".join(definition.experiment.phases)])
        return Outlook(
            points=points,
            naive=orders.naive * len(seeds),
            shared=orders.shared * len(seeds),
            stored=None,
            flops=None,
            tree=orders,
        )
    stages: dict[str, tuple[bool, float]] = {}
    naive, flops = 0, 0.0
    for row in rows:
        for seed in seeds:
            request = PointRequest(row=row, parameters={}, seed=seed, on_stage=lambda facts: None)
            for stage in carrier.plan(request)[0].stages:
                naive, flops = naive + 1, flops + stage.flops
                stages[stage.recipe.digest] = (stage.cached, stage.flops)
    return Outlook(
        points=points,
        naive=naive,
        shared=len(stages),
        stored=sum(cached for cached, _ in stages.values()),
        flops=(flops, sum(cost for _, cost in stages.values())),
        tree=tree,
    )
