"""Names and combinations that types allow and no experiment can mean."""

from __future__ import annotations

import re

from ...registry.suggest import did_you_mean, divisors_near, listing
from .conversions import CAUSAL
from .objectives import OPTIONS
from .problems import Problems
from .roles import check_roles
from .schema import (
    CriterionSection,
    Experiment,
    PhaseSection,
    StepSection,
)
from .trackers import check_trackers

KeyPath = tuple[str, ...]

SMALLEST_VOCABULARY = 256 + 5  # every byte, and <pad> <eos> <user> <asst> <end>
RESERVED = "parent"  # `against: parent` is whatever stage comes before

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


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
    check_trackers(experiment.run.report_to, problems)
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
            f"{label}: {step.rows} rows do not divide into {step.accumulate} micro-batches; set accumulate to a "
            f"divisor of rows, the nearest is {divisors_near(step.accumulate, step.rows)}.",
        )
    if step.batches.mixture and not any(step.batches.mixture.values()):
        here = (*path, "batches", "mixture")
        problems.add(here, f"{'.'.join(here)} gives every domain a share of 0; at least one must be above 0.")
    unknown = sorted(set(step.batches.type_shares) - set(step.batches.types)) if step.batches.types else []
    for name in unknown:
        here = (*path, "batches", "type_shares", name)
        text = f"{label} has no batch type '{name}'.{did_you_mean(name, step.batches.types)}"
        problems.add(here, f"{text} Types: {listing(step.batches.types)}.")
    if step.objective in CAUSAL and step.view != "text":
        text = f"{label}.view is '{step.view}', but a {step.objective} step reads text; set view: text."
        problems.add((*path, "view"), text)
    if step.kinds and step.objective in CAUSAL:
        text = (
            f"{label}.kinds has no effect in a {step.objective} step, which reads all text; remove it, or weigh "
            "batches.mixture."
        )
        problems.add((*path, "kinds"), text)
    check_roles(step, path, problems)
    _replay(step, path, problems)


def _replay(step: StepSection, path: KeyPath, problems: Problems) -> None:
    replay, label = step.replay, ".".join((*path, "replay"))
    if step.objective in CAUSAL:
        for key in ("chat", "rows", "sequence_length", "views", "weight"):
            if getattr(replay, key):
                text = (
                    f"{label}.{key} has no effect in a {step.objective} step, which replays by share; remove it or set "
                    "share."
                )
                problems.add((*path, "replay", key), text)
        return
    if step.objective in OPTIONS:
        for key in ("chat", "rows", "sequence_length", "share", "views", "weight"):
            if getattr(replay, key):
                text = f"{label}.{key} has no effect in a step with objective: {step.objective}; remove it."
                problems.add((*path, "replay", key), text)
        return
    if replay.share:
        what = f"{'an' if step.objective == 'sft' else 'a'} {step.objective} step"
        text = f"{label}.share has no effect in {what}, which replays by rows and weight; set those."
        problems.add((*path, "replay", "share"), text)
    if bool(replay.rows) != bool(replay.weight):
        missing, given = ("weight", "rows") if replay.rows else ("rows", "weight")
        text = f"{label}.{given} has no effect while {missing} is 0; set {missing} too, or remove {given}."
        problems.add((*path, "replay", given), text)
    if replay.views and not replay.chat:
        text = f"{label}.views has no effect while chat is 0; set chat too, or remove it."
        problems.add((*path, "replay", "views"), text)
    if replay.sequence_length is not None and not replay.rows:
        text = f"{label}.sequence_length has no effect while rows is 0; set rows and weight too, or remove it."
        problems.add((*path, "replay", "sequence_length"), text)


def _criterion(criterion: CriterionSection, path: KeyPath, problems: Problems) -> None:
    label = ".".join(path)
    low, high = criterion.at_least, criterion.at_most
    if low is None and high is None:
        problems.add(path, f"{label} has no bound, so it could not fail; give at_least or at_most.")
    if low is not None and high is not None and low > high:
        problems.add((*path, "at_least"), f"{label} asks for at least {low:g} and at most {high:g}, which nothing is.")
    for key, bound in (("at_least", low), ("at_most", high)):
        if criterion.statistic == "win_rate" and bound is not None and not 0 <= bound <= 1:
            text = f"{label}.{key} is {bound:g}, but a win rate lies between 0 and 1, and so must its bound."
            problems.add((*path, key), text)
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
