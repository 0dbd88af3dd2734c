"""What a study varies: orders of phases by name, and parameters of the experiment."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One curriculum of a study: a name, the order of its phases as ``a>b>c``, and what else it sets (dotted keys of
    the experiment, as ``--set`` takes them); ``note`` says what it is for."""

    name: str
    order: str
    set: Mapping[str, Any] = field(default_factory=dict)
    note: str = ""

    @property
    def key(self) -> str:
        """The row as a value of Optuna's parameter ``order``: the order itself, and the name where more is set."""
        return f"{self.order} [{self.name}]" if self.set else self.order

    @property
    def phases(self) -> tuple[str, ...]:
        """The names of its phases, in their order."""
        return tuple(self.order.split(">"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Parameter:
    """A dotted key of the experiment and the values it may take: a range of numbers (of whole ones where both ends
    are), or ``choices``."""

    key: str
    low: float | None = None
    high: float | None = None
    step: float | None = None
    log: bool = False
    choices: tuple[Any, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchSpace:
    """Rows and parameters; ``listed`` rows are all run, in their order, and others are for a sampler to choose from.
    The first listed row is what the others are compared with."""

    rows: tuple[Row, ...] = ()
    parameters: tuple[Parameter, ...] = ()
    listed: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Curriculum:
    """What a search space may know of an experiment: its phases in their written order, the component of each, and
    what each requires of earlier ones and provides to later ones."""

    phases: tuple[str, ...]
    uses: Mapping[str, str]
    requires: Mapping[str, Sequence[str]]
    provides: Mapping[str, Sequence[str]]


class Space(Protocol):
    """A search-space component: built as ``target(config)``, it says what a study of a curriculum varies."""

    def space(self, curriculum: Curriculum) -> SearchSpace: ...
