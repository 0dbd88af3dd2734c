"""What answering and withholding come to."""

from __future__ import annotations

import math
from collections.abc import Sequence

from .base import ConfidenceMetric


class Abstention(ConfidenceMetric):
    """Decisions (1 answered, 0 withheld) against truth (1 right, 0 wrong if answered).

    ``coverage`` is the share answered and ``abstained`` the share withheld, ``coverage_right`` the share of right
    answers that were given, ``accuracy_answered`` the share of given answers that are right, ``justified`` the share of
    withheld ones that are wrong. NaN where there is nothing to take a share of.
    """

    prediction = "int64"
    about = "Shares of answered and withheld answers, and how many of each were right to be."
    source = "Geifman and El-Yaniv 2017, arXiv 1705.08500"

    def _compute(self, predictions: Sequence[int], references: Sequence[int]) -> dict[str, float]:
        pairs = list(zip(predictions, references, strict=True))
        given = sum(answered for answered, _ in pairs)
        right = sum(truth for _, truth in pairs)
        both = sum(answered * truth for answered, truth in pairs)
        withheld = len(pairs) - given
        return {
            "coverage": _share(given, len(pairs)),
            "abstained": _share(withheld, len(pairs)),
            "coverage_right": _share(both, right),
            "accuracy_answered": _share(both, given),
            "justified": _share(withheld - (right - both), withheld),
        }


class ConfidentWrong(ConfidenceMetric):
    """Share of all answers that are wrong at a confidence above ``threshold``: ``confident_wrong``."""

    about = "Share of answers that are wrong with a confidence above a threshold."

    def _compute(
        self, predictions: Sequence[float], references: Sequence[int], threshold: float = 0.9
    ) -> dict[str, float]:
        wrong = sum(score > threshold and not truth for score, truth in zip(predictions, references, strict=True))
        return {"confident_wrong": _share(wrong, len(references))}


def _share(part: float, whole: float) -> float:
    return part / whole if whole else math.nan
