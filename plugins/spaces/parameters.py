"""Keys of the experiment as a search space."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ...core.study.parameters import check_parameters
from ...core.study.space import Curriculum, Parameter, Row, SearchSpace
from ...registry.errors import ConfigError
from .rows import ListedRow, listed

# int first, and no conversion between the two: a range of whole numbers is written without a point.
Number = int | float


@dataclass(frozen=True, slots=True, kw_only=True)
class ParameterRange:
    """What a key may be: ``low`` to ``high`` (whole numbers where both are), searched by the logarithm with ``log``, in
    steps of ``step``; or one of ``choices``."""

    low: Number | None = None
    high: Number | None = None
    log: bool = False
    step: Number | None = None
    choices: tuple[Any, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ParametersConfig:
    """``keys`` are what is varied, as ``--set`` takes them; ``order`` is that of the phases (the written one if not
    said)."""

    keys: Mapping[str, ParameterRange] = field(default_factory=dict)
    order: str | None = None


class Parameters:
    """Numbers and choices of one curriculum; the order of its phases stays."""

    def __init__(self, config: ParametersConfig | None = None) -> None:
        self.config = config or ParametersConfig()

    def space(self, curriculum: Curriculum) -> SearchSpace:
        """The parameters; ConfigError for one that nothing can be chosen from, and for none."""
        if not self.config.keys:
            raise ConfigError(
                "the search space 'parameters' varies nothing; give keys in options: keys: {key: {low: …, high: …}}."
            )
        parameters = tuple(
            Parameter(key=key, low=one.low, high=one.high, step=one.step, log=one.log, choices=one.choices)
            for key, one in self.config.keys.items()
        )
        check_parameters(parameters)
        rows: tuple[Row, ...] = ()
        if self.config.order is not None:
            rows = listed({"fixed": ListedRow(order=self.config.order)}, curriculum)
        return SearchSpace(rows=rows, parameters=parameters)
