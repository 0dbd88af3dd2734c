"""Fitting confidence probes: a convex loss on frozen states, and a scale on questions that the probes never saw."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.functional import softplus

Array: TypeAlias = NDArray[np.float64]

_LEAST_SPREAD = 1e-2  # of normalised states; below it a dimension says nothing and would only be blown up


def fit_linear(
    features: Array, right: Array, penalties: Array, strength: float, *, rising: bool = False
) -> tuple[Array, float]:
    """Weights (F,) and bias of log-odds a = x . weights + bias that minimise the asymmetric loss.

    With c = sigmoid(a - ln w), each of N answers costs -ln c if right and -w ln(1 - c) if wrong; half the squared
    weights over ``strength`` are added. Its minimiser is c = p / (p + w (1 - p)) for a probability p of being right,
    hence a = ln(p / (1 - p)) whatever the domain's w: the domain enters as an offset where it is known and need not be
    guessed from the states, and the loss still spends its effort where a wrong answer costs most (Elkan 2001;
    Buja 2005 on weighted losses as proper scores). Labels are drawn in by Platt's (1999) half a document, so that
    answers that are all right or all wrong have a minimiser too. ``rising`` allows no negative weight.
    shape: (N, F), (N,), (N,) -> (F,), ()
    """
    from scipy.optimize import minimize

    count, width = features.shape
    hits = float(right.sum())
    target = torch.from_numpy(np.where(right > 0, (hits + 1) / (hits + 2), 1 / (count - hits + 2)))
    inputs, costs = torch.from_numpy(features), torch.from_numpy(penalties)
    offset = costs.log()

    def loss(parameters: Array) -> tuple[float, Array]:
        # In torch, whose threads are the run's: numpy's own would take every core for products of this size.
        weights, bias = torch.from_numpy(parameters[:width]), float(parameters[width])
        logit = inputs @ weights + bias - offset
        value = target * softplus(-logit) + costs * (1 - target) * softplus(logit)
        slope = costs * (1 - target) * logit.sigmoid() - target * (-logit).sigmoid()
        gradient = np.r_[(strength * (inputs.T @ slope) + weights).numpy(), strength * float(slope.sum())]
        return float(strength * value.sum() + weights @ weights / 2), gradient

    bounds = [(0.0, None)] * width + [(None, None)] if rising else None
    options: dict[str, Any] = {"maxiter": 2000, "maxfun": 4000, "ftol": 1e-10, "gtol": 1e-5 * max(1.0, strength)}
    found = minimize(loss, np.zeros(width + 1), jac=True, method="L-BFGS-B", bounds=bounds, options=options)
    return np.asarray(found.x[:width], dtype=np.float64), float(found.x[width])


def fit_depth(states: Array, right: Array, penalties: Array, strength: float) -> tuple[Array, float]:
    """One depth's probe, fitted on standardised states and returned for states as they are.

    shape: (N, F), (N,), (N,) -> (F,), ()
    """
    centre, spread = states.mean(0), np.maximum(states.std(0), _LEAST_SPREAD)
    weights, bias = fit_linear((states - centre) / spread, right, penalties, strength)
    weights = weights / spread
    return weights, bias - float(centre @ weights)


def fit_scale(logits: Array, right: Array) -> tuple[float, float]:
    """Scale and shift of log-odds (Platt 1999) on separate questions; the scale is never negative, so that the order
    of answers stays. shape: (N,), (N,) -> (), ()"""
    weights, bias = fit_linear(logits[:, None], right, np.ones(len(right)), 1e6, rising=True)
    return float(weights[0]), bias
