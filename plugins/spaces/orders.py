"""All orders of an experiment's phases."""

from __future__ import annotations

from dataclasses import dataclass

from ...core.study.orders import orders_of
from ...core.study.space import Curriculum, Row, SearchSpace


@dataclass(frozen=True, slots=True, kw_only=True)
class OrdersConfig:
    """Which orders: all permutations, or with ``subsets`` every order of one or more phases; ``first`` and ``last``
    hold phases in their places; ``invalid`` also takes orders in which a phase lacks what it requires."""

    subsets: bool = False
    first: str | None = None
    last: str | None = None
    invalid: bool = False


class Orders:
    """Every order of the phases that their requirements allow, the written one first; a sampler chooses among them."""

    def __init__(self, config: OrdersConfig | None = None) -> None:
        self.config = config or OrdersConfig()

    def space(self, curriculum: Curriculum) -> SearchSpace:
        """The rows, each named by its order; ConfigError where no order is allowed, or too many are."""
        asked = self.config
        orders = orders_of(curriculum, subsets=asked.subsets, first=asked.first, last=asked.last, invalid=asked.invalid)
        return SearchSpace(rows=tuple(Row(name=order, order=order) for order in orders))
