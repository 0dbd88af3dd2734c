"""Parameters of a study: what of them can be searched, as Optuna's distributions and as a grid."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from ...registry.errors import ConfigError, blaming
from .space import Parameter, Row, SearchSpace

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

ORDER = "order"  # the name of the parameter that holds a row's key
GRID_LIMIT = 10_000  # points of one exhaustive study


def check_parameters(parameters: Sequence[Parameter]) -> None:
    """ConfigError for the first parameter that nothing can be chosen from."""
    seen: set[str] = set()
    for parameter in parameters:
        with blaming("options", "keys", parameter.key):
            _check(parameter, seen)


def _check(parameter: Parameter, seen: set[str]) -> None:
    if parameter.key in seen or parameter.key == ORDER:
        raise ConfigError(f"the search space varies '{parameter.key}' twice; name every key once.")
    seen.add(parameter.key)
    if parameter.choices:
        _check_choices(parameter)
    else:
        _check_range(parameter)


def _check_choices(parameter: Parameter) -> None:
    where = f"the search space's '{parameter.key}'"
    if parameter.low is not None or parameter.high is not None or parameter.log or parameter.step is not None:
        raise ConfigError(f"{where} has choices and a range; give choices, or low and high.")
    for number, choice in enumerate(parameter.choices):
        if choice is not None and not isinstance(choice, bool | int | float | str):
            raise ConfigError(f"{where} has the choice {choice!r}; choices are numbers, words, true, false or null.")
        # Optuna compares choices by ==, so that True and 1 would be one.
        if choice in parameter.choices[:number]:
            raise ConfigError(f"{where} has two choices that equal {choice!r}; name each once.")


def _check_range(parameter: Parameter) -> None:
    where, low, high, step = f"the search space's '{parameter.key}'", parameter.low, parameter.high, parameter.step
    if low is None or high is None:
        raise ConfigError(f"{where} has nothing to choose from; give low and high, or choices.")
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise ConfigError(f"{where} goes from {low:g} to {high:g}; low must lie below high.")
    if step is not None and not 0 < step <= high - low:
        raise ConfigError(f"{where} has step {step:g}, which must lie above 0 and within {low:g} to {high:g}.")
    if parameter.log and low <= 0:
        raise ConfigError(f"{where} is searched by its logarithm, so low must lie above 0, not at {low:g}.")
    if parameter.log and step is not None:
        raise ConfigError(f"{where} has log and step; a logarithmic range takes no step.")


def is_whole(parameter: Parameter) -> bool:
    """Whether a range is one of whole numbers: both ends, and the step if there is one, are written without a point."""
    return all(isinstance(number, int) for number in (parameter.low, parameter.high, parameter.step or 1))


def distributions(space: SearchSpace) -> dict[str, BaseDistribution]:
    """What a trial draws: ``order`` among the rows where there are several, and every parameter by its key."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    found: dict[str, BaseDistribution] = {}
    if len(space.rows) > 1:
        found[ORDER] = CategoricalDistribution([row.key for row in space.rows])
    for one in space.parameters:
        if one.choices:
            found[one.key] = CategoricalDistribution(one.choices)
        elif is_whole(one):
            low, high, step = int(one.low or 0), int(one.high or 0), int(one.step or 1)
            # Optuna lowers an end that no step reaches, with a warning; the grid does the same.
            found[one.key] = IntDistribution(low, high - (high - low) % step, log=one.log, step=step)
        else:
            low_, high_ = float(one.low or 0), float(one.high or 0)
            if one.step:
                high_ = _stepped(low_, high_, one.step)[-1]
            found[one.key] = FloatDistribution(low_, high_, log=one.log, step=one.step)
    return found


def row_of(space: SearchSpace, drawn: Mapping[str, Any]) -> Row | None:
    """The row that a trial drew; the only one where there is nothing to draw, None where the space or the trial
    has none."""
    if len(space.rows) == 1:
        return space.rows[0]
    return next((row for row in space.rows if row.key == drawn.get(ORDER)), None)


def settings_of(drawn: Mapping[str, Any]) -> dict[str, Any]:
    """The dotted keys that a trial drew, without the order."""
    return {key: value for key, value in drawn.items() if key != ORDER}


def point_key(drawn: Mapping[str, Any]) -> str:
    """One text for what a trial drew: equal texts are the same point."""
    return json.dumps(dict(sorted(drawn.items())), ensure_ascii=False, separators=(",", ":"))


def size_of(space: SearchSpace) -> int | None:
    """How many points a space has; None where a range has no steps."""
    count = max(1, len(space.rows))
    for parameter in space.parameters:
        values = _values(parameter)
        if values is None:
            return None
        count *= len(values)
    return count


def grid(space: SearchSpace) -> Iterator[dict[str, Any]]:
    """Every point of a finite space: rows in their order, and under each all settings.

    ConfigError where a range has no steps, or where there are more points than an exhaustive study can list.
    """
    endless = [parameter.key for parameter in space.parameters if _values(parameter) is None]
    if endless:
        raise ConfigError(
            f"sampler: exhaustive cannot try every value of '{endless[0]}'; give it a step or choices, or take the "
            "sampler gp or tpe."
        )
    size = size_of(space) or 0
    if size > GRID_LIMIT:
        raise ConfigError(
            f"sampler: exhaustive would run {size:,} points, more than {GRID_LIMIT:,}; narrow the space or take "
            "another sampler."
        )
    rows: list[dict[str, Any]] = [{ORDER: row.key} for row in space.rows] if len(space.rows) > 1 else [{}]
    keys = [parameter.key for parameter in space.parameters]
    lists = [_values(parameter) or () for parameter in space.parameters]
    for row in rows:
        for values in itertools.product(*lists):
            yield {**row, **dict(zip(keys, values, strict=True))}


def _values(parameter: Parameter) -> tuple[Any, ...] | None:
    if parameter.choices:
        return parameter.choices
    low, high = parameter.low or 0, parameter.high or 0
    if is_whole(parameter):
        return tuple(range(int(low), int(high) + 1, int(parameter.step or 1)))
    return _stepped(low, high, parameter.step) if parameter.step else None


def _stepped(low: float, high: float, step: float) -> tuple[float, ...]:
    """The values of a range in steps, as decimals: in binary three steps of 0.3 end below 0.9, where Optuna's end."""
    first, wide = Decimal(str(low)), Decimal(str(step))
    count = int((Decimal(str(high)) - first) // wide)
    return tuple(float(first + wide * number) for number in range(count + 1))
