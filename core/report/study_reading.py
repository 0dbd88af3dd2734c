"""Reading the results of a study from its folder."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ...registry.errors import StoreError
from .evidence import json_of, whole
from .study_facts import (
    Difference,
    EffectFacts,
    OrderFacts,
    ParameterFacts,
    Score,
    SeedFacts,
    SharingFacts,
    Spread,
    StudyFacts,
    TrialFacts,
)

STUDY, RESULTS = "study.json", "results.json"
_FORMAT = 1


def study_facts(folder: Path) -> StudyFacts:
    """Everything that a report on a study states; ``StoreError`` where it has no results yet or they are damaged."""
    path = folder / RESULTS
    if not path.is_file():
        raise StoreError(f"the study {folder} has no results yet; run it again and it goes on")
    found = json_of(path)
    if found.get("format") != _FORMAT:
        raise StoreError(
            f"{path} has format {found.get('format')!r}, this version reads {_FORMAT}; use the version that wrote it"
        )
    facts = whole(path, lambda: _facts(found))
    if not facts.rows and not facts.trials:
        raise StoreError(f"the study {folder} has finished no trial yet; run it again and it goes on")
    return facts


def _facts(found: Mapping[str, Any]) -> StudyFacts:
    scores = tuple(
        Score(
            name=name,
            maximize=facts["direction"] == "maximize",
            of=tuple(facts.get("of", ())),
            relative=bool(facts.get("relative")),
            refit=facts.get("refit"),
        )
        for name, facts in found["scores"].items()
    )
    sharing = found.get("trainings")
    return StudyFacts(
        study=str(found["study"]),
        experiment=str(found["experiment"]),
        study_kind=str(found["kind"]),
        seeds=tuple(int(seed) for seed in found.get("seeds", ())),
        scores=scores,
        rows=tuple(map(_order, found.get("rows", ()))),
        effects=tuple(_effect(row) for row in found.get("effects", ())),
        sharing=None
        if not sharing
        else SharingFacts(
            **{name: int(sharing[name]) for name in ("naive", "shared", "trained", "reused")},
            minutes=_number(sharing.get("minutes")),
            minutes_saved=_number(sharing.get("minutes_saved")),
        ),
        parameters=tuple(_parameter(row) for row in found.get("parameters", ())),
        trials=tuple(_trial(row, [score.name for score in scores]) for row in found.get("trials", ())),
        best=tuple(int(number) for number in found.get("best", ())),
        importance={key: float(share) for key, share in (found.get("importance") or {}).items()},
    )


def _order(row: Mapping[str, Any]) -> OrderFacts:
    return OrderFacts(
        name=str(row["name"]),
        order=str(row["order"]),
        valid=bool(row.get("valid", True)),
        note=str(row.get("note") or ""),
        seeds=tuple(
            SeedFacts(
                seed=int(seed),
                scores=_numbers(facts["scores"]),
                capabilities=_numbers(facts.get("capabilities") or {}),
                verdicts={name: int(count) for name, count in (facts.get("verdicts") or {}).items()},
            )
            for seed, facts in row["seeds"].items()
        ),
        scores={
            name: Spread(mean=_number(one.get("mean")), sd=_number(one.get("sd")), n=int(one.get("n", 0)))
            for name, one in row["scores"].items()
        },
        differences={
            name: Difference(
                value=_number(one.get("value")),
                low=_number(one.get("low")),
                high=_number(one.get("high")),
                p=_number(one.get("p")),
                resolved=bool(one.get("resolved")),
                words=str(one.get("words") or ""),
            )
            for name, one in (row.get("differences") or {}).items()
        },
    )


def _effect(row: Mapping[str, Any]) -> EffectFacts:
    return EffectFacts(
        before=str(row["before"]),
        after=str(row["after"]),
        score=str(row["score"]),
        value=_number(row.get("value")),
        low=_number(row.get("low")),
        high=_number(row.get("high")),
        resolved=bool(row.get("resolved")),
    )


def _parameter(row: Mapping[str, Any]) -> ParameterFacts:
    return ParameterFacts(
        key=str(row["key"]),
        low=_number(row.get("low")),
        high=_number(row.get("high")),
        log=bool(row.get("log")),
        choices=tuple(row.get("choices") or ()),
    )


def _trial(row: Mapping[str, Any], scores: Sequence[str]) -> TrialFacts:
    values, constraints = row.get("values") or {}, row.get("constraints") or {}
    if not isinstance(values, Mapping):
        values = dict(zip(scores, values, strict=False))
    if not isinstance(constraints, Mapping):
        constraints = {f"constraint {place + 1}": value for place, value in enumerate(constraints)}
    return TrialFacts(
        number=int(row["number"]),
        state=str(row["state"]).lower(),
        order=str(row.get("order") or ""),
        parameters=dict(row.get("parameters") or {}),
        values=tuple(_number(values.get(name)) for name in scores),
        constraints=_numbers(constraints),
        stopped_after=row.get("stopped_after"),
        seconds=_number(row.get("seconds")),
    )


def _numbers(values: Mapping[str, Any]) -> dict[str, float | None]:
    return {str(name): _number(value) for name, value in values.items()}


def _number(value: Any) -> float | None:
    return None if value is None or not math.isfinite(float(value)) else float(value)
