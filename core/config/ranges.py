"""The range of every number of an experiment."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

from .problems import Problems, shown
from .schema import (
    BatchSection,
    BumpSection,
    ContextSection,
    CriterionSection,
    DataSection,
    Experiment,
    HardwareSection,
    LossSection,
    MetricSection,
    PolicySection,
    QuantizerSection,
    ReplaySection,
    RunSection,
    StepSection,
    StudySection,
    TokenizerSection,
    Weight,
)

KeyPath = tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Range:
    """An interval that a number must lie in; None where it is open."""

    least: float | None = None
    above: float | None = None
    most: float | None = None
    below: float | None = None

    def holds(self, number: float) -> bool:
        """Tell whether ``number`` lies in the interval; NaN never does."""
        return (
            (self.least is None or number >= self.least)
            and (self.above is None or number > self.above)
            and (self.most is None or number <= self.most)
            and (self.below is None or number < self.below)
            and number == number
        )

    def words(self) -> str:
        """Return the interval as a person says it."""
        said = {"at least": self.least, "above": self.above, "at most": self.most, "below": self.below}
        return " and ".join(f"{word} {bound:.10g}" for word, bound in said.items() if bound is not None)


_COUNT = Range(least=1)
_POSITIVE = Range(above=0)
_NOT_NEGATIVE = Range(least=0)
_SHARE = Range(least=0, most=1)
_PART = Range(least=0, below=1)
_SOME = Range(above=0, most=1)

RANGES: Mapping[type, Mapping[str, Range]] = {
    BatchSection: {"primary": _SOME, "mixture": _NOT_NEGATIVE, "type_shares": _NOT_NEGATIVE},
    BumpSection: {"every": _SOME, "rows": _COUNT, "tolerance": _NOT_NEGATIVE},
    ContextSection: {"factor": Range(least=1), "theta": _POSITIVE},
    CriterionSection: {"confidence": Range(above=0.5, below=1), "documents": _COUNT},
    DataSection: {
        "contamination_ngram": _COUNT,
        "held_out": Range(above=0, most=0.5),
        "rows_per_domain": _COUNT,
        "sequence_length": Range(least=2),
    },
    Experiment: {"seed": Range(least=0, most=2**32 - 1)},
    HardwareSection: {"devices": _COUNT, "price": _NOT_NEGATIVE, "utilization": _SOME},
    LossSection: {"weight": _NOT_NEGATIVE},
    MetricSection: {"documents": _COUNT},
    PolicySection: {"extend_by": _POSITIVE, "extensions": _NOT_NEGATIVE},
    QuantizerSection: {"events": _PART, "shares": _SOME},
    ReplaySection: {
        "chat": _SHARE,
        "rows": _NOT_NEGATIVE,
        "sequence_length": Range(least=2),
        "share": _PART,
        "weight": _NOT_NEGATIVE,
    },
    RunSection: {"eval_batch_size": _COUNT, "logging_steps": _COUNT, "save_every": _SOME, "threads": _COUNT},
    StepSection: {
        "accumulate": _COUNT,
        "betas": _PART,
        "clip": _POSITIVE,
        "decay_from": _PART,
        "floor": _SHARE,
        "learning_rate": _POSITIVE,
        "learning_rate_scale": _NOT_NEGATIVE,
        "rows": _COUNT,
        "sequence_length": Range(least=2),
        "steps": _COUNT,
        "warmup": _PART,
        "weight_decay": _NOT_NEGATIVE,
    },
    StudySection: {"seeds": Range(least=0, most=2**32 - 1), "trials": _COUNT},
    TokenizerSection: {"documents": _COUNT},
    Weight: {"end": _NOT_NEGATIVE, "over": _SOME, "start": _NOT_NEGATIVE},
}


def check_numbers(experiment: Experiment, problems: Problems) -> None:
    """Note every number outside its range, at any depth."""
    for path, section in sections(experiment):
        for name, allowed in RANGES.get(type(section), {}).items():
            for here, number in _numbers(getattr(section, name), (*path, name)):
                if not allowed.holds(number):
                    problems.add(here, f"{'.'.join(here)} must be {allowed.words()}, not {shown(number)}.")


def sections(value: Any, path: KeyPath = ()) -> Iterator[tuple[KeyPath, Any]]:
    """Yield every section of the experiment with its path, the outermost first."""
    if is_dataclass(value):
        yield path, value
        for field in fields(value):
            yield from sections(getattr(value, field.name), (*path, field.name))
    elif isinstance(value, Mapping) and path[-1:] != ("options",):
        for name, item in value.items():
            yield from sections(item, (*path, name))


def _numbers(value: Any, path: KeyPath) -> Iterator[tuple[KeyPath, float]]:
    if isinstance(value, int | float):
        yield path, value
    elif isinstance(value, tuple):
        for index, item in enumerate(value):
            yield from _numbers(item, (*path, str(index)))
    elif isinstance(value, Mapping):
        for name, item in value.items():
            yield from _numbers(item, (*path, name))
