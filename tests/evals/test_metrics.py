"""The metrics as modules of the ``evaluate`` library: by class, typed, without a network."""

from __future__ import annotations

import math

import pytest
from phasegate.evals.metrics.abstention import Abstention, ConfidentWrong
from phasegate.evals.metrics.confidence import Auroc, Brier, CalibrationError, RiskCoverage

SCORES, RIGHT = [0.9, 0.8, 0.7, 0.6], [1, 0, 1, 0]


def test_the_calibration_error_is_the_formulas() -> None:
    found = CalibrationError().compute(predictions=[0.95, 0.95, 0.15, 0.15], references=[1, 0, 0, 0])
    assert found == {"ece": pytest.approx(0.30)}


def test_the_number_of_bins_can_be_chosen() -> None:
    assert CalibrationError().compute(predictions=[0.2, 0.1], references=[1, 0], bins=5)["ece"] == pytest.approx(0.35)


def test_brier_and_auroc_are_those_of_scikit_learn() -> None:
    assert Brier().compute(predictions=SCORES, references=RIGHT)["brier"] == pytest.approx(
        (0.01 + 0.64 + 0.09 + 0.36) / 4
    )
    assert Auroc().compute(predictions=SCORES, references=RIGHT)["auroc"] == 0.75


def test_one_class_has_no_auroc() -> None:
    assert math.isnan(Auroc().compute(predictions=SCORES, references=[1, 1, 1, 1])["auroc"])


def test_the_curve_comes_with_its_areas() -> None:
    found = RiskCoverage().compute(predictions=SCORES, references=RIGHT)
    assert found["coverage"] == [0.25, 0.5, 0.75, 1.0]
    assert found["risk"] == pytest.approx([0, 0.5, 0.333333, 0.5])
    assert found["aurc"] == pytest.approx(1 / 3)
    assert found["e_aurc"] == pytest.approx(0.125)


@pytest.mark.parametrize(("metric", "key"), [(CalibrationError, "ece"), (Brier, "brier"), (Auroc, "auroc")])
def test_bounds_lie_around_the_value_and_repeat(metric: type, key: str) -> None:
    scores, right = [0.05 + 0.1 * (n % 10) for n in range(200)], [int(n % 7 < 3) for n in range(200)]
    first, again = (metric().compute(predictions=scores, references=right, replicates=200) for _ in range(2))
    assert first == again
    assert first[f"{key}_low"] < first[key] < first[f"{key}_high"]


def test_bounds_are_wider_where_documents_go_together() -> None:
    scores, right = [0.5] * 200, [int(n % 40 < 20) for n in range(200)]

    def width(groups: list[int] | None) -> float:
        found = Brier().compute(predictions=[0.9] * 200, references=right, replicates=300, groups=groups)
        return float(found["brier_high"] - found["brier_low"])

    assert scores and width([n // 20 for n in range(200)]) > 2 * width(None)


def test_what_abstention_comes_to() -> None:
    # Five answers: given 3 (2 right), withheld 2 (1 wrong); 3 are right in all.
    found = Abstention().compute(predictions=[1, 1, 1, 0, 0], references=[1, 1, 0, 1, 0])
    assert found["coverage"] == 0.6
    assert found["abstained"] == 0.4
    assert found["coverage_right"] == pytest.approx(2 / 3)
    assert found["accuracy_answered"] == pytest.approx(2 / 3)
    assert found["justified"] == 0.5


def test_a_share_of_nothing_is_not_a_number() -> None:
    found = Abstention().compute(predictions=[1, 1], references=[0, 0])
    assert math.isnan(found["justified"])
    assert math.isnan(found["coverage_right"])


def test_a_confident_error_lies_above_the_threshold() -> None:
    metric = ConfidentWrong()
    assert metric.compute(predictions=[0.95, 0.9, 0.91, 0.2], references=[1, 0, 0, 0])["confident_wrong"] == 0.25
    assert metric.compute(predictions=[0.6, 0.4], references=[0, 0], threshold=0.5)["confident_wrong"] == 0.5


def test_predictions_that_are_no_numbers_are_refused() -> None:
    with pytest.raises(ValueError, match="could not convert string to float"):
        Brier().compute(predictions=["high"], references=[1])
