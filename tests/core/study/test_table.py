"""The results of a study of orders."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from phasegate.core.config.schema import MetricSection, ScoreSection
from phasegate.core.study.point import PointOutcome
from phasegate.core.study.space import Row
from phasegate.core.study.table import Table, trainings

FULL = Row(name="full", order="a>b>c")
SWAPPED = Row(name="swapped", order="a>c>b")
SHORT = Row(name="short", order="a")

SCORES = {
    "quality": ScoreSection(
        of={"x": MetricSection(use="choice", metric="acc"), "y": MetricSection(use="format", metric="acc")},
        relative=True,
    ),
    "error": ScoreSection(of={"e": MetricSection(use="calibration", metric="ece")}, direction="minimize"),
}


def outcome(stages: str, x: float, y: float, e: float | None, **more: Any) -> PointOutcome:
    return PointOutcome(
        scores={"quality": (x + y) / 2, "error": e},
        parts={"quality": {"x": x, "y": y}, "error": {"e": e}},
        stages=tuple(stages.split()),
        capabilities={"choice acc": x},
        verdicts={"pass": 1, "fail": 0, "undecided": 0, "not evaluated": 0},
        **{"seconds": 60.0, "seconds_saved": 30.0, "trained": 2, "reused": 1, **more},
    )


FOUND: Mapping[str, Mapping[int, PointOutcome]] = {
    "full": {0: outcome("a0 b0 c0", 0.8, 0.5, 0.1), 1: outcome("a1 b1 c1", 1.0, 0.5, 0.2)},
    "swapped": {0: outcome("a0 d0 e0", 0.4, 0.25, 0.3), 1: outcome("a1 d1 e1", 0.5, 0.25, 0.4)},
    "short": {0: outcome("a0", 0.8, 0.5, None), 1: outcome("a1", 1.0, 0.5, None)},
}


def table(found: Mapping[str, Mapping[int, PointOutcome]] = FOUND, documents: Any = None) -> Table:
    return Table(rows=(FULL, SWAPPED, SHORT), found=found, scores=SCORES, documents=documents or (lambda *_: None))


def test_a_relative_score_divides_every_metric_by_its_best_row() -> None:
    """The best means are 0.9 for x and 0.5 for y."""
    assert table().values("full", "quality") == pytest.approx({0: (0.8 / 0.9 + 1) / 2, 1: (1.0 / 0.9 + 1) / 2})
    assert table().values("swapped", "quality") == pytest.approx({0: (0.4 / 0.9 + 0.5) / 2, 1: (0.5 / 0.9 + 0.5) / 2})


def test_rows_are_compared_with_the_first_seed_by_seed() -> None:
    found = table().differences()
    assert "full" not in found
    assert found["swapped"]["error"].value == pytest.approx(0.2)
    assert found["swapped"]["error"].n == 2
    assert found["short"]["quality"].value == pytest.approx(0.0)


def test_a_score_that_a_row_does_not_have_is_no_difference_and_no_zero() -> None:
    assert "error" not in table().differences()["short"]
    row = next(row for row in table().record()["rows"] if row["name"] == "short")
    assert row["scores"]["error"] == {"mean": None, "sd": None, "n": 0}
    assert row["seeds"]["0"]["scores"]["error"] is None


def test_documents_widen_a_difference_by_the_share_of_their_metric() -> None:
    """x differs on one of two documents: deltas 1 and 0, variance of the mean 0.25; its weight is 1 / (0.9 * 2)."""
    values = {"c": {"p": 1.0, "q": 1.0}, "e": {"p": 0.0, "q": 1.0}}

    def documents(score: str, metric: str, stage: str) -> Mapping[str, float] | None:
        return values.get(stage[0]) if metric == "x" else None

    plain, wide = (
        table().differences()["swapped"]["quality"],
        table(documents=documents).differences()["swapped"]["quality"],
    )
    assert plain.high is not None and wide.high is not None
    assert (wide.high - wide.value) ** 2 - (plain.high - plain.value) ** 2 == pytest.approx(
        1.959963984540054**2 * 0.25 / 1.8**2
    )


def test_effects_compare_rows_in_which_both_phases_come() -> None:
    effect = next(one for one in table().effects() if one["score"] == "error")
    assert (effect["before"], effect["after"]) == ("b", "c")
    assert effect["value"] == pytest.approx(-0.2)


def test_trainings_count_every_stage_once_where_it_is_shared() -> None:
    found = trainings(FOUND)
    assert (found["naive"], found["shared"]) == (14, 10)
    assert (found["trained"], found["reused"]) == (12, 6)
    assert (found["minutes"], found["minutes_saved"]) == (6.0, 3.0)


def test_the_record_is_json_and_marks_what_does_not_resolve() -> None:
    import json

    record = json.loads(json.dumps(table().record(), allow_nan=False))
    swapped = next(row for row in record["rows"] if row["name"] == "swapped")
    assert set(swapped["differences"]["error"]) == {"value", "low", "high", "p", "n", "resolved", "words"}
    assert swapped["differences"]["quality"]["words"] in {"resolved", "by itself only", "not resolved"}
