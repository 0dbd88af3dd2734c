"""What a gate promises: values that mean what they say, and a model left as it was."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch

from ...evals.criteria import Criterion, judge
from ...evals.measurement import Measurement
from ..check import Example, NotApplicable, Subject
from ..corpus import context_of, model_of
from ..tiny import weights_digest

Measured = Mapping[str, Measurement]

_ENDLESS = 1e30  # a bound that every number meets


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What one gate did with one model: two measurements in a row, and what was another afterwards."""

    example: Example
    first: Measured
    second: Measured
    disturbed: tuple[str, ...]


class _Last:
    """The gate that was looked at last: its checks come in a row, and measuring is what takes time."""

    seen: tuple[str, Seen] | None = None


def measured(subject: Subject, model: Any, **changes: Any) -> Measured:
    """What the gate reports of a model."""
    config = subject.config()
    target = subject.entry.load()
    gate = target() if config is None else target(config)
    with TemporaryDirectory() as folder:
        found: Measured = gate.measure(context_of(model, Path(folder), **changes))
        assert isinstance(found, Mapping), f"It gave a {type(found).__name__}, and no mapping of measurements."
    for name, one in found.items():
        assert isinstance(one, Measurement), f"'{name}' is a {type(one).__name__}, and no Measurement."
        assert one.metric == name, f"'{name}' holds a measurement called '{one.metric}'."
    return found


def _state(model: Any) -> dict[str, Any]:
    return {
        "the model's mode": model.training,
        "which weights train": [p.requires_grad for p in model.parameters()],
        "the model's weights": weights_digest(model),
        "the model's configuration": json.dumps(model.config.to_dict(), sort_keys=True, default=str),
        "the model's hooks": [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules()],
        "torch's random state": torch.get_rng_state().tolist(),
        "numpy's random state": repr(np.random.get_state(legacy=False)),
        "Python's random state": random.getstate(),
        "whether gradients are on": torch.is_grad_enabled(),
    }


def look(subject: Subject) -> Seen:
    """Measure a fresh tiny model twice, once per gate and example."""
    known = _Last.seen
    if known is not None and known[0] == subject.entry.key and known[1].example is subject.example:
        return known[1]
    model = model_of(subject).train()
    before = _state(model)
    first = measured(subject, model)
    after = _state(model)
    disturbed = tuple(name for name, value in before.items() if after[name] != value)
    seen = Seen(example=subject.example, first=first, second=measured(subject, model), disturbed=disturbed)
    _Last.seen = (subject.entry.key, seen)
    return seen


def _evaluated(found: Measured) -> dict[str, Measurement]:
    values = {name: one for name, one in found.items() if one.missing is None}
    if not values:
        reasons = sorted({str(one.missing) for one in found.values()})
        raise NotApplicable(f"it measures nothing of the tiny model: {'; '.join(reasons)}")
    return values


def declared(subject: Subject) -> None:
    """It reports at least one metric, none but those that its spec declares, and all that stand there by full name."""
    patterns: tuple[str, ...] = getattr(subject.entry.component, "metrics", ())
    found = look(subject).first
    assert found, "It reported nothing."
    if not patterns:
        raise NotApplicable("its spec declares no metrics, since its options decide which there are")
    odd = [name for name in found if not any(fnmatchcase(name, pattern) for pattern in patterns)]
    assert not odd, f"It reported {', '.join(odd)}, and its spec declares {', '.join(patterns)}."
    plain = {pattern for pattern in patterns if "*" not in pattern}
    absent = sorted(plain - found.keys())
    if all(one.missing is None for one in found.values()):
        assert not absent, f"Its spec declares {', '.join(absent)}, and it did not report it."


def finite(subject: Subject) -> None:
    """Every value is a finite number of at least one document, or NaN with the reason why it is missing."""
    for name, one in look(subject).first.items():
        if one.missing is not None:
            assert one.missing.strip() and math.isnan(one.value), f"'{name}' is missing and yet {one.value}."
            continue
        assert math.isfinite(one.value), f"'{name}' is {one.value} without a reason; use missing(name, why)."
        assert one.n >= 1, f"'{name}' was measured on {one.n} documents."
        if one.kind == "proportion":
            assert -1e-9 <= one.value <= 1 + 1e-9, f"The proportion '{name}' is {one.value}."
        if one.interval is not None:
            low, high = one.interval
            assert low <= one.value + 1e-9 and one.value <= high + 1e-9, f"'{name}' lies outside its interval."
    _evaluated(look(subject).first)


def by_document(subject: Subject) -> None:
    """Values per document, where there are any, average to the value, and there are as many as it counts."""
    values = _evaluated(look(subject).first)
    documented = {name: one for name, one in values.items() if one.per_document and one.kind != "exact"}
    if not documented:
        raise NotApplicable("it has no values per document")
    for name, one in documented.items():
        mean = math.fsum(one.per_document.values()) / len(one.per_document)
        assert math.isclose(mean, one.value, rel_tol=1e-6, abs_tol=1e-9), (
            f"'{name}' is {one.value:.6g}, and its documents average to {mean:.6g}."
        )
        assert one.n == len(one.per_document), f"'{name}' counts {one.n} documents and lists {len(one.per_document)}."


def undisturbed(subject: Subject) -> None:
    """Measuring leaves the model, its mode, its weights, and every global random state as they were."""
    disturbed = look(subject).disturbed
    assert not disturbed, f"After measuring, {', '.join(disturbed)} differed."


def determinism(subject: Subject) -> None:
    """Measured again, the same model has the same values on the same documents."""
    seen = look(subject)
    for name, one in _evaluated(seen.first).items():
        other = seen.second[name]
        assert one.value == other.value, f"'{name}' was {one.value!r} and then {other.value!r}."
        assert one.per_document == other.per_document, f"'{name}' had other values per document."


def nan_is_no_pass(subject: Subject) -> None:
    """A model of NaN with a log of NaN passes no criterion, however easy."""
    model = model_of(subject)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(torch.nan)
    history = [{"step": step, "loss": math.nan, "loss/task": math.nan} for step in range(1, 41)]
    found = measured(subject, model, history=history)
    assert found, "It reported nothing."
    for name in found:
        for criterion in (
            Criterion(name="easy", metric=name, at_least=-_ENDLESS),
            Criterion(name="easy", metric=name, at_most=_ENDLESS),
        ):
            for judgement in judge(criterion, {name: found[name]}):
                assert judgement.verdict != "pass", f"'{name}' is {found[name].value} for a model of NaN, and passes."


def hand_value(subject: Subject) -> None:
    """It reports what was worked out by hand: the ``hand`` of an example, or a function ``hand`` of its class."""
    hand = subject.example.hand or getattr(subject.entry.load(), "hand", None)
    if hand is None:
        raise NotApplicable("no example says what it must report")
    changes, wanted = hand()
    model = changes["model"] if "model" in changes else model_of(subject)
    found = measured(subject, model, **{key: value for key, value in changes.items() if key != "model"})
    for name, value in wanted.items():
        assert name in found, f"It did not report '{name}', only {', '.join(sorted(found))}."
        same = math.isclose(found[name].value, value, rel_tol=1e-6, abs_tol=1e-9)
        assert same, f"'{name}' is {found[name].value:.8g}, and by hand {value:.8g}."


CHECKS: tuple[Callable[[Subject], None], ...] = (
    declared,
    finite,
    by_document,
    undisturbed,
    determinism,
    nan_is_no_pass,
    hand_value,
)
