"""What a model knows of its own answers: reliability and risk against coverage, before its probes and with them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ...evals.calibration import BINS, calibration_error
from ..run.store import Stage
from .evidence import Measured, lines_of, tables_in, value_of, whole
from .facts import Bin, ConfidenceFacts, Confident, Value

PROBES, SOFTMAX, LIKELIHOOD = "probes", "max softmax", "likelihood of the answer"


def confidence_of(
    stages: Mapping[str, Stage], evidence: Mapping[str, Mapping[str, Measured]]
) -> Iterable[ConfidenceFacts]:
    """Confidence after every phase whose calibration was measured; without answers on file there are no bins."""
    for phase, measured in evidence.items():
        metrics = next((found for found in measured.values() if "aurc" in found and "ece" in found), None)
        if metrics is None or value_of(metrics["ece"]) is None:
            continue
        path = tables_in(stages[phase], "calibration", "answers.jsonl")
        answers = [] if path is None else lines_of(path)
        curve = metrics["aurc"]
        yield ConfidenceFacts(
            phase=phase,
            questions=curve.n,
            stale=bool(curve.evidence.get("stale")),
            measures=(
                _measure(SOFTMAX, metrics, "_softmax", None, _bins(path, answers, "softmax"), _ece(answers, "softmax")),
                _measure(PROBES, metrics, "", value_of(metrics["ece"]), _bins(path, answers, "confidence"), None),
                _measure(LIKELIHOOD, metrics, "_logprob", None, (), None),
            ),
        )


def _measure(
    name: str, metrics: Measured, suffix: str, ece: Value | None, bins: tuple[Bin, ...], own: Value | None
) -> Confident:
    area = metrics.get(f"aurc{suffix}")
    curve = {} if area is None else area.evidence.get("curve", {})
    pairs = zip(curve.get("coverage", ()), curve.get("risk", ()), strict=True)
    return Confident(
        name=name,
        ece=ece or own,
        bins=bins,
        aurc=value_of(area),
        curve=tuple((float(coverage), float(risk)) for coverage, risk in pairs),
    )


def _ece(answers: Sequence[Mapping[str, Any]], key: str) -> Value | None:
    if not answers:
        return None
    found = calibration_error([row[key] for row in answers], [float(row["right"]) for row in answers])
    return Value(value=round(float(found), 6), low=None, high=None, n=len(answers))


def _bins(path: Path | None, answers: Sequence[Mapping[str, Any]], key: str) -> tuple[Bin, ...]:
    """Bins of equal width as the calibration error has them: bin m is ((m - 1) / M, m / M]."""
    if path is None:
        return ()
    pairs = whole(path, lambda: [(float(row[key]), float(row["right"])) for row in answers])
    scores, right = np.asarray(pairs).T
    places = np.clip(np.ceil(scores * BINS).astype(np.int64) - 1, 0, BINS - 1)
    return tuple(
        Bin(
            n=int(member.sum()),
            confidence=round(float(scores[member].mean()), 4),
            right=round(float(right[member].mean()), 4),
        )
        for place in range(BINS)
        if (member := places == place).any()
    )
