"""Formulas of calibration and selective prediction, for one sample or for many bootstrap replicates at once.

``confidence`` (N,) lies in [0, 1] for the calibration errors and may be any score for the rankings; ``right`` (N,) is
0 or 1. ``weights`` (..., N) counts how often each document was drawn; leading dimensions are carried through. Where a
formula has no value (one class only, nothing drawn) it is NaN.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array: TypeAlias = NDArray[np.float64]
BINS = 15


def calibration_error(confidence: ArrayLike, right: ArrayLike, weights: Array | None = None, bins: int = BINS) -> Array:
    """Expected calibration error: sum over equal-width bins of (n_b / n) |accuracy_b - confidence_b| (Guo 2017,
    1706.04599; bin m is ((m - 1) / M, m / M]). It is biased upwards where bins hold few documents.

    shape: (N,), (N,), (..., N) -> (...)
    """
    scores, truth, counts = _arrays(confidence, right, weights)
    places = np.clip(np.ceil(scores * bins).astype(np.int64) - 1, 0, bins - 1)
    member = np.eye(bins)[places]  # shape: (N, bins)
    gaps = np.abs(counts @ (member * (truth - scores)[:, None]))
    return _ratio(gaps.sum(-1), counts.sum(-1))


def brier(confidence: ArrayLike, right: ArrayLike, weights: Array | None = None) -> Array:
    """Mean squared distance of confidence and truth, in [0, 1] (Brier 1950). shape: (N,), (N,), (..., N) -> (...)"""
    scores, truth, counts = _arrays(confidence, right, weights)
    return _ratio(counts @ (scores - truth) ** 2, counts.sum(-1))


def auroc(confidence: ArrayLike, right: ArrayLike, weights: Array | None = None) -> Array:
    """Probability that a right answer is more confident than a wrong one, ties half (Mann and Whitney 1947).

    shape: (N,), (N,), (..., N) -> (...)
    """
    scores, truth, counts = _arrays(confidence, right, weights)
    order, starts = _tied(scores)
    truth, counts = truth[order], counts[..., order]
    positive = np.add.reduceat(counts * truth, starts, axis=-1)
    negative = np.add.reduceat(counts * (1 - truth), starts, axis=-1)
    below = np.cumsum(negative, -1) - negative / 2
    return _ratio((positive * below).sum(-1), positive.sum(-1) * negative.sum(-1))


def risk_coverage(confidence: ArrayLike, right: ArrayLike, weights: Array | None = None) -> tuple[Array, Array, Array]:
    """Coverage and selective risk at every threshold, the most confident first, and the share of documents at it.

    Documents of equal confidence are answered together, so their order is of no account (El-Yaniv and Wiener 2010).
    shape: (N,), (N,), (..., N) -> three times (..., thresholds)
    """
    scores, truth, counts = _arrays(confidence, right, weights)
    order, starts = _tied(-scores)
    truth, counts = truth[order], counts[..., order]
    drawn = np.add.reduceat(counts, starts, axis=-1)
    wrong = np.add.reduceat(counts * (1 - truth), starts, axis=-1)
    total = counts.sum(-1, keepdims=True)
    answered = np.cumsum(drawn, -1)
    with np.errstate(invalid="ignore", divide="ignore"):
        risk = np.where(answered > 0, np.cumsum(wrong, -1) / answered, 0.0)
        return answered / total, risk, drawn / total


def aurc(confidence: ArrayLike, right: ArrayLike, weights: Array | None = None) -> Array:
    """Area under the risk-coverage curve: mean over documents of the risk at their own threshold; lower is better
    (Geifman 2018, 1805.08206). shape: (N,), (N,), (..., N) -> (...)"""
    _, risk, share = risk_coverage(confidence, right, weights)
    return np.asarray((risk * share).sum(-1), dtype=np.float64)


def excess_aurc(confidence: ArrayLike, right: ArrayLike, weights: Array | None = None) -> Array:
    """AURC above that of the best ranking of the same answers, every right one before every wrong one (E-AURC, Geifman
    2018, 1805.08206).

    With R right and W wrong answers the best is (W - R (H(R + W) - H(R))) / (R + W), H harmonic numbers; the source
    gives its limit for many answers, r + (1 - r) ln(1 - r) at an error rate r. shape: (N,), (N,), (..., N) -> (...)
    """
    from scipy.special import digamma

    _, truth, counts = _arrays(confidence, right, weights)
    total, hits = counts.sum(-1), counts @ truth
    best = _ratio(total - hits - hits * (digamma(total + 1) - digamma(hits + 1)), total)
    return np.asarray(aurc(confidence, right, weights) - best, dtype=np.float64)


def resampled(groups: ArrayLike, replicates: int, seed: int) -> Array:
    """How often each document is drawn when whole groups are drawn with replacement (cluster bootstrap, Davison and
    Hinkley 1997): phrasings of one question are no independent documents. shape: (N,) -> (replicates, N)"""
    _, member = np.unique(np.asarray(groups), return_inverse=True)
    count = int(member.max()) + 1
    drawn = np.random.default_rng(seed).multinomial(count, np.full(count, 1 / count), size=replicates)
    return np.asarray(drawn[:, member], dtype=np.float64)


def spread(values: Array) -> float:
    """Standard deviation of replicates; those without a value do not count, NaN where fewer than two have one."""
    known = values[np.isfinite(values)]
    return float(known.std(ddof=1)) if len(known) > 1 else float("nan")


def _arrays(confidence: ArrayLike, right: ArrayLike, weights: Array | None) -> tuple[Array, Array, Array]:
    scores, truth = np.asarray(confidence, dtype=np.float64), np.asarray(right, dtype=np.float64)
    return scores, truth, np.ones(len(scores)) if weights is None else weights


def _tied(scores: Array) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The order that sorts scores upwards, and where each group of equal scores begins in it."""
    order = np.argsort(scores, kind="stable")
    starts = np.flatnonzero(np.r_[True, np.diff(scores[order]) != 0])
    return order, starts


def _ratio(above: Any, below: Any) -> Array:
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(np.where(np.asarray(below) > 0, above / np.asarray(below), np.nan), dtype=np.float64)
