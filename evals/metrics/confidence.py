"""How well confidence fits the truth, and how well it ranks answers."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
from sklearn.metrics import brier_score_loss, roc_auc_score

from ..calibration import BINS, aurc, auroc, brier, calibration_error, excess_aurc, risk_coverage
from .base import ConfidenceMetric, with_interval

Values = Sequence[float]
Groups = Sequence[Any] | None


class CalibrationError(ConfidenceMetric):
    """Expected calibration error over equal-width bins: ``ece``, with ``ece_low`` and ``ece_high``."""

    about = "Expected calibration error over equal-width bins of confidence."
    source = "Guo et al. 2017, arXiv 1706.04599"

    def _compute(
        self,
        predictions: Values,
        references: Values,
        bins: int = BINS,
        replicates: int = 0,
        seed: int = 0,
        groups: Groups = None,
    ) -> dict[str, float]:
        value = float(calibration_error(predictions, references, bins=bins))
        return with_interval(
            "ece",
            value,
            lambda drawn: calibration_error(predictions, references, drawn, bins),
            len(predictions),
            replicates,
            seed,
            groups,
        )


class Brier(ConfidenceMetric):
    """Brier score: ``brier``, with bounds if asked for."""

    about = "Mean squared distance of confidence and truth."
    source = "Brier 1950, Monthly Weather Review 78:1"

    def _compute(
        self, predictions: Values, references: Values, replicates: int = 0, seed: int = 0, groups: Groups = None
    ) -> dict[str, float]:
        value = float(brier_score_loss(references, predictions, pos_label=1))
        return with_interval(
            "brier",
            value,
            lambda drawn: brier(predictions, references, drawn),
            len(predictions),
            replicates,
            seed,
            groups,
        )


class Auroc(ConfidenceMetric):
    """Area under the ROC curve: ``auroc``, NaN where all answers are right or all wrong, with bounds if asked for."""

    about = "Probability that a right answer is more confident than a wrong one."
    source = "Hanley and McNeil 1982, Radiology 143:29"

    def _compute(
        self, predictions: Values, references: Values, replicates: int = 0, seed: int = 0, groups: Groups = None
    ) -> dict[str, float]:
        value = float(roc_auc_score(references, predictions)) if len(set(references)) == 2 else float("nan")
        return with_interval(
            "auroc",
            value,
            lambda drawn: auroc(predictions, references, drawn),
            len(predictions),
            replicates,
            seed,
            groups,
        )


class RiskCoverage(ConfidenceMetric):
    """Selective prediction: ``aurc`` and ``e_aurc``, with bounds if asked for, and the curve as lists ``coverage`` and
    ``risk``, the most confident answers first."""

    about = "Risk against coverage, the area under it, and that area above the best possible one."
    source = "Geifman et al. 2018, arXiv 1805.08206"

    def _compute(
        self, predictions: Values, references: Values, replicates: int = 0, seed: int = 0, groups: Groups = None
    ) -> dict[str, Any]:
        coverage, risk, _ = risk_coverage(predictions, references)
        found: dict[str, Any] = {"coverage": np.round(coverage, 6).tolist(), "risk": np.round(risk, 6).tolist()}
        for name, area in (("aurc", aurc), ("e_aurc", excess_aurc)):
            found |= with_interval(
                name,
                float(area(predictions, references)),
                partial(area, predictions, references),
                len(predictions),
                replicates,
                seed,
                groups,
            )
        return found
