"""Numbers and combinations that types allow and no experiment can mean."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

from ...registry.suggest import listing
from .problems import Problems, shown
from .schema import (
    BatchSection,
    BumpSection,
    CriterionSection,
    DataSection,
    Experiment,
    LossSection,
    PhaseSection,
    PolicySection,
    ReplaySection,
    RunSection,
    StepSection,
    TokenizerSection,
    Weight,
)

KeyPath = tuple[str, ...]

SMALLEST_VOCABULARY = 256 + 5  # every byte, and <pad> <eos> <user> <asst> <end>
RESERVED = "parent"  # `against: parent` is whatever stage comes before

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


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
        return " and ".join(f"{word} {bound:g}" for word, bound in said.items() if bound is not None)


_COUNT = Range(least=1)
_POSITIVE = Range(above=0)
_NOT_NEGATIVE = Range(least=0)
_SHARE = Range(least=0, most=1)
_PART = Range(least=0, below=1)
_SOME = Range(above=0, most=1)

RANGES: Mapping[type, Mapping[str, Range]] = {
    BatchSection: {"primary": _SOME, "mixture": _NOT_NEGATIVE, "type_shares": _NOT_NEGATIVE},
    BumpSection: {"every": _SOME, "rows": _COUNT, "tolerance": _NOT_NEGATIVE},
    CriterionSection: {"confidence": Range(above=0.5, below=1), "documents": _COUNT},
    DataSection: {
        "contamination_ngram": _COUNT,
        "held_out": Range(above=0, most=0.5),
        "rows_per_domain": _COUNT,
        "sequence_length": Range(least=2),
    },
    Experiment: {"seed": Range(least=0, most=2**32 - 1)},
    LossSection: {"weight": _NOT_NEGATIVE},
    PolicySection: {"extend_by": _POSITIVE, "extensions": _NOT_NEGATIVE},
    ReplaySection: {"chat": _SHARE, "rows": _NOT_NEGATIVE, "share": _PART, "weight": _NOT_NEGATIVE},
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


def check_combinations(experiment: Experiment, problems: Problems) -> None:
    """Note names that cannot be folders, keys that contradict each other, and keys that could have no effect."""
    _name(experiment.name, ("name",), "the experiment's name", problems)
    if not experiment.data.sources:
        problems.add(("data", "sources"), "data.sources names no source; give one, such as world: microworld.")
    vocabulary = experiment.tokenizer.vocab_size
    if vocabulary is not None and experiment.tokenizer.path is None and vocabulary < SMALLEST_VOCABULARY:
        problems.add(
            ("tokenizer", "vocab_size"),
            f"tokenizer.vocab_size must be at least {SMALLEST_VOCABULARY} (256 bytes and 5 special tokens), "
            f"not {vocabulary}.",
        )
    if not experiment.phases:
        problems.add(("phases",), "phases names no phase; an experiment trains at least one.")
    for name, phase in experiment.phases.items():
        path = ("phases", name)
        _name(name, path, "a phase's name", problems)
        _phase(phase, path, problems)


def _phase(phase: PhaseSection, path: KeyPath, problems: Problems) -> None:
    if not phase.steps and not phase.gates and not phase.entry:
        problems.add(path, f"{'.'.join(path)} has neither steps nor gates, so it would do nothing.")
    if phase.policy.then in {"extend", "rollback"}:
        here = (*path, "policy", "then")
        problems.add(
            here,
            f"{'.'.join(here)} must be advance or stop, not {phase.policy.then}: it decides when repeats are used up.",
        )
    for name, step in phase.steps.items():
        _name(name, (*path, "steps", name), "a step's name", problems)
        _step(step, (*path, "steps", name), problems)
    for kind, criteria in (("entry", phase.entry), ("gates", phase.gates)):
        for name, criterion in criteria.items():
            _criterion(criterion, (*path, kind, name), problems)


def _step(step: StepSection, path: KeyPath, problems: Problems) -> None:
    label = ".".join(path)
    if step.accumulate >= 1 and step.rows % step.accumulate:
        problems.add(
            (*path, "accumulate"),
            f"{label}: {step.rows} rows do not divide into {step.accumulate} micro-batches; "
            "choose accumulate so that it divides rows.",
        )
    if step.batches.mixture and not sum(step.batches.mixture.values()) > 0:
        here = (*path, "batches", "mixture")
        problems.add(here, f"{'.'.join(here)} gives every domain a share of 0; at least one must be above 0.")
    unknown = sorted(set(step.batches.type_shares) - set(step.batches.types)) if step.batches.types else []
    for name in unknown:
        here = (*path, "batches", "type_shares", name)
        problems.add(here, f"{label} has no batch type '{name}'. Types: {listing(step.batches.types)}.")
    _replay(step, path, problems)


def _replay(step: StepSection, path: KeyPath, problems: Problems) -> None:
    replay, label = step.replay, ".".join((*path, "replay"))
    if step.objective == "causal":
        for key in ("chat", "rows", "weight"):
            if getattr(replay, key):
                text = f"{label}.{key} has no effect in a causal step, which replays by share; remove it or set share."
                problems.add((*path, "replay", key), text)
        return
    if replay.share:
        what = {"dpo": "a dpo step", "sft": "an sft step"}[step.objective]
        text = f"{label}.share has no effect in {what}, which replays by rows and weight; set those."
        problems.add((*path, "replay", "share"), text)
    if bool(replay.rows) != bool(replay.weight):
        missing, given = ("weight", "rows") if replay.rows else ("rows", "weight")
        text = f"{label}.{given} has no effect while {missing} is 0; set {missing} too, or remove {given}."
        problems.add((*path, "replay", given), text)


def _criterion(criterion: CriterionSection, path: KeyPath, problems: Problems) -> None:
    label = ".".join(path)
    low, high = criterion.at_least, criterion.at_most
    if low is None and high is None:
        problems.add(path, f"{label} has no bound, so it could not fail; give at_least or at_most.")
    if low is not None and high is not None and low > high:
        problems.add((*path, "at_least"), f"{label} asks for at least {low:g} and at most {high:g}, which nothing is.")
    if criterion.statistic == "win_rate" and any(bound is not None and not 0 <= bound <= 1 for bound in (low, high)):
        problems.add(path, f"{label}: a win rate lies between 0 and 1, and so must its bound.")
    if criterion.statistic == "value" and criterion.against is not None:
        text = f"{label}.against has no effect on statistic: value; set statistic to difference or win_rate."
        problems.add((*path, "against"), text)
    if criterion.statistic != "value" and criterion.against is None:
        text = f"{label}: a {criterion.statistic} needs something to compare with; set against to a stage."
        problems.add((*path, "statistic"), text)


def is_name(text: str) -> bool:
    """Tell whether ``text`` can name an experiment, a phase or a step: it becomes part of folder names."""
    return bool(_NAME.fullmatch(text)) and text != RESERVED and len(text) <= 100


def _name(name: str, path: KeyPath, what: str, problems: Problems) -> None:
    if not is_name(name):
        rule = f"at most 100 letters, digits, '.', '_' and '-', a letter or digit first, and not '{RESERVED}'"
        problems.add(path, f"'{name[:60]}' cannot be {what}: use {rule}.")
