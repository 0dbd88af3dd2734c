"""The results of a study of orders: a row per curriculum, scored over seeds and compared with the first row."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

from ..config.schema import ScoreSection
from .point import PointOutcome
from .space import Row
from .statistics import Difference, difference, paired_variance, resolved

#: Values by document of one metric of a score at the end of a run, or None where it has none.
Documents = Callable[[str, str, str], Mapping[str, float] | None]
Found = Mapping[str, Mapping[int, PointOutcome]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """Rows that were carried out, in the order of the study, by seed; ``documents(score, metric, stage)`` gives what a
    metric was for each document."""

    rows: Sequence[Row]
    found: Found
    scores: Mapping[str, ScoreSection]
    documents: Documents

    def values(self, row: str, score: str) -> dict[int, float]:
        """Return a score of a row by seed; a relative one has each metric divided by its best over all rows."""
        section, values = self.scores[score], {}
        scale = self._scale(score)
        for seed, outcome in self.found.get(row, {}).items():
            parts = [outcome.parts.get(score, {}).get(name) for name in section.of]
            if all(part is not None for part in parts) and parts:
                named = zip(section.of, parts, strict=True)
                values[seed] = math.fsum((part or 0.0) / scale[name] for name, part in named) / len(parts)
        return values

    def differences(self) -> dict[str, dict[str, Difference]]:
        """Return, for every row but the first, each score's paired difference from the first row; what is resolved
        holds together over the whole table."""
        first = self.rows[0].name
        flat: dict[str, Difference] = {}
        for row in self.rows[1:]:
            for score in self.scores:
                new, old = self.values(row.name, score), self.values(first, score)
                seeds = sorted(set(new) & set(old))
                if seeds:
                    deltas = [new[seed] - old[seed] for seed in seeds]
                    variance = self._document_variance(row.name, first, score, seeds)
                    flat[f"{row.name}\n{score}"] = difference(deltas, variance)
        marked = resolved(flat)
        table: dict[str, dict[str, Difference]] = {}
        for key, one in marked.items():
            row_name, _, score = key.partition("\n")
            table.setdefault(row_name, {})[score] = one
        return table

    def effects(self) -> list[dict[str, Any]]:
        """Return what it does to each score that one phase comes before another: the mean over rows in which it does,
        less the mean over rows with both in which it does not, paired by seed.

        Rows differ in more than one pair, so this describes the rows of the study and no cause by itself.
        """
        phases = sorted({phase for row in self.rows for phase in row.phases})
        found: dict[str, Difference] = {}
        for one, other in combinations(phases, 2):
            both = [row for row in self.rows if {one, other} <= set(row.phases) and not row.set]
            before = [row for row in both if row.phases.index(one) < row.phases.index(other)]
            after = [row for row in both if row not in before]
            if not before or not after:
                continue
            for score in self.scores:
                values = {row.name: self.values(row.name, score) for row in both}
                seeds = sorted(set.intersection(*(set(value) for value in values.values())))
                if seeds:
                    deltas = [_mean(values, before, seed) - _mean(values, after, seed) for seed in seeds]
                    found["\n".join((one, other, score))] = difference(deltas)
        rows = []
        for key, effect in resolved(found).items():
            before_name, after_name, score = key.split("\n")
            rows.append({"before": before_name, "after": after_name, "score": score, **_said(effect)})
        return rows

    def record(self) -> dict[str, Any]:
        """Return the rows, differences and effects as JSON data."""
        differences = self.differences()
        return {
            "rows": [self._row(row, differences.get(row.name, {})) for row in self.rows if row.name in self.found],
            "effects": self.effects(),
            "trainings": trainings(self.found),
        }

    def _row(self, row: Row, differences: Mapping[str, Difference]) -> dict[str, Any]:
        outcomes = self.found[row.name]
        by_score = {score: self.values(row.name, score) for score in self.scores}
        notes = sorted({note for outcome in outcomes.values() for note in outcome.notes})
        return {
            "name": row.name,
            "order": row.order,
            "note": "; ".join([part for part in (row.note,) if part] + notes),
            "set": dict(row.set),
            "seeds": {
                str(seed): {
                    "stages": list(outcome.stages),
                    "scores": {score: by_score[score].get(seed) for score in self.scores},
                    "parts": {score: dict(parts) for score, parts in outcome.parts.items()},
                    "capabilities": dict(outcome.capabilities),
                    "verdicts": dict(outcome.verdicts),
                    "seconds": outcome.seconds,
                }
                for seed, outcome in sorted(outcomes.items())
            },
            "scores": {score: _spread(list(values.values())) for score, values in by_score.items()},
            "differences": {score: {**_said(one), "words": one.words} for score, one in differences.items()},
        }

    def _scale(self, score: str) -> dict[str, float]:
        """The best mean over seeds that each metric of a relative score reaches in any row; 1 for others."""
        section = self.scores[score]
        scale = dict.fromkeys(section.of, 1.0)
        if not section.relative:
            return scale
        pick = max if section.direction == "maximize" else min
        for name in section.of:
            means = []
            for outcomes in self.found.values():
                values = [outcome.parts.get(score, {}).get(name) for outcome in outcomes.values()]
                if values and all(value is not None for value in values):
                    means.append(math.fsum(value or 0.0 for value in values) / len(values))
            if means and pick(means) > 0:
                scale[name] = pick(means)
        return scale

    def _document_variance(self, row: str, first: str, score: str, seeds: Sequence[int]) -> float:
        """The part of a difference's variance that documents have; metrics without values by document add none."""
        section, total = self.scores[score], 0.0
        scale = self._scale(score)
        for name in section.of:
            sides = []
            for which in (row, first):
                ends = [self.found[which][seed].stages[-1] for seed in seeds]
                sides.append([self.documents(score, name, end) for end in ends])
            if any(one is None for side in sides for one in side):
                continue
            new, old = ([one or {} for one in side] for side in sides)
            total += (paired_variance(new, old) or 0.0) / (scale[name] * len(section.of)) ** 2
        return total


def trainings(found: Found) -> dict[str, Any]:
    """Return how many stages the points have, how many of them are different, what was trained here or taken from the
    store, and the minutes that each took or saved."""
    outcomes = [outcome for by_seed in found.values() for outcome in by_seed.values()]
    return {
        "naive": sum(len(outcome.stages) for outcome in outcomes),
        "shared": len({stage for outcome in outcomes for stage in outcome.stages}),
        "trained": sum(outcome.trained for outcome in outcomes),
        "reused": sum(outcome.reused for outcome in outcomes),
        "minutes": math.fsum(outcome.seconds for outcome in outcomes) / 60,
        "minutes_saved": math.fsum(outcome.seconds_saved for outcome in outcomes) / 60,
    }


def _mean(values: Mapping[str, Mapping[int, float]], rows: Sequence[Row], seed: int) -> float:
    return math.fsum(values[row.name][seed] for row in rows) / len(rows)


def _spread(values: Sequence[float]) -> dict[str, Any]:
    if not values:
        return {"mean": None, "sd": None, "n": 0}
    mean = math.fsum(values) / len(values)
    if len(values) < 2:
        return {"mean": mean, "sd": None, "n": 1}
    return {
        "mean": mean,
        "sd": math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1)),
        "n": len(values),
    }


def _said(one: Difference) -> dict[str, Any]:
    return {"value": one.value, "low": one.low, "high": one.high, "p": one.p, "n": one.n, "resolved": one.resolved}
