"""The sampler for orders: it learns which phase had better come before which, and prefers what is cheap to find out."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from optuna.samplers import BaseSampler, RandomSampler
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from .failures import EVERYWHERE, FAILED, failures
from .parameters import ORDER
from .tree import PrefixTree
from .workers import was_broken_off

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.study import Study

Vector = NDArray[np.float64]

# On an objective of standard deviation 1. With P pairs a weight has the prior deviation 1/sqrt(P), which makes the
# prior of an order's score as wide as the objective. The deviation of what the model leaves unsaid (noise, and all that
# precedence cannot express) is the one of these under which the scores are likeliest: a fixed small one makes the
# model sure of itself where it is wrong, and it then asks the same corner again and again.
NOISES = (0.05, 0.1, 0.2, 0.4, 0.8, 1.2)
LEVEL = 3.0  # prior deviation of the mean: wide, as the objective is centred anyway


def features(orders: Sequence[Sequence[str]], phases: Sequence[str]) -> Vector:
    """What the model sees of orders: 1; +1 or -1 for every phase that is there or not; for every pair +1 or -1 by
    which comes first, 0 where one is absent.

    Returns shape: (orders, 1 + phases + pairs).
    """
    place = np.full((len(orders), len(phases)), -1)
    column = {phase: number for number, phase in enumerate(phases)}
    for row, order in enumerate(orders):
        for position, phase in enumerate(order):
            place[row, column[phase]] = position
    there = place >= 0  # shape: (O, P)
    left, right = np.array(list(itertools.combinations(range(len(phases)), 2)), dtype=int).reshape(-1, 2).T
    both = there[:, left] & there[:, right]
    pairs = np.where(both, np.sign(place[:, right] - place[:, left]), 0)
    return np.concatenate([np.ones((len(orders), 1)), np.where(there, 1.0, -1.0), pairs], axis=1)


class PrecedenceSampler(BaseSampler):
    """Chooses orders by Thompson sampling on a Bayesian linear model of presence and pairwise precedence.

    One weight vector is drawn from the posterior (Thompson 1933; Russo et al. 2018, 1707.02038), every order that
    was not tried and is not being tried is scored, and its gain over the best one so far is divided by the number of
    phases that still have to be trained for it. Draws depend on ``seed`` and the trial's number only, so that several
    workers never draw alike. ``candidates`` maps the values of the parameter ``order`` to orders ``a>b>c``. The first
    trial takes ``prior``. ``trained`` tells of a beginning whether the store has it beside those of the study's own
    trials. Other parameters go to ``independent``. Of several objectives a random weighting is taken in every trial
    (Knowles 2006). Constraints do not steer it; orders that begin like one that a gate ended are never chosen.
    """

    def __init__(
        self,
        candidates: Mapping[str, str],
        *,
        seed: int = 0,
        prior: str | None = None,
        trained: Callable[[tuple[str, ...]], bool] | None = None,
        independent: BaseSampler | None = None,
        cost_aware: bool = True,
    ) -> None:
        self._keys = list(candidates)
        self._orders = [tuple(order.split(">")) for order in candidates.values()]
        self._phases = sorted({phase for order in self._orders for phase in order})
        self._features = features(self._orders, self._phases)
        self._number = {key: number for number, key in enumerate(self._keys)}
        self._seed, self._prior, self._trained = seed, prior, trained
        self._independent = independent or RandomSampler(seed=seed)
        self._cost_aware = cost_aware

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        from optuna.distributions import CategoricalDistribution

        return {ORDER: CategoricalDistribution(self._keys)}

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        others = [one for one in study.get_trials(deepcopy=False) if one.number != trial.number and ORDER in one.params]
        tried = [one for one in others if not was_broken_off(one)]
        open_ = self._open(tried)
        if not open_:
            return {}  # nothing is left to choose; the independent sampler repeats one, and a study ends before that
        if not others and self._prior is not None:
            return {ORDER: self._prior}
        rng = np.random.default_rng([self._seed, trial.number])
        rows, scores = self._observed(study, tried, rng)
        if not rows:
            return {ORDER: self._keys[int(rng.choice(open_))]}
        drawn = self._draw(self._features[rows], scores, rng)
        gain = self._features[open_] @ drawn - scores.max()
        if (gain > 0).any() and self._cost_aware:
            gain = np.where(gain > 0, gain / self._costs(open_, others), gain)
        return {ORDER: self._keys[open_[int(np.argmax(gain))]]}

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        return self._independent.sample_independent(study, trial, param_name, param_distribution)

    def reseed_rng(self) -> None:
        self._independent.reseed_rng()

    def _open(self, tried: Sequence[FrozenTrial]) -> list[int]:
        used = {self._number[one.params[ORDER]] for one in tried if one.params[ORDER] in self._number}
        failed = [tuple(order.split(">")) for scope, order in failures(tried) if scope == EVERYWHERE]
        return [
            number
            for number, order in enumerate(self._orders)
            if number not in used and not any(order[: len(beginning)] == beginning for beginning in failed)
        ]

    def _observed(
        self, study: Study, tried: Iterable[FrozenTrial], rng: np.random.Generator
    ) -> tuple[list[int], Vector]:
        """The orders with a value and their scores, higher is better, with mean 0 and deviation 1.

        An order that a gate ended counts as the worst one seen.
        """
        signs = np.array([1.0 if one == StudyDirection.MAXIMIZE else -1.0 for one in study.directions])
        weights = np.ones(1) if len(signs) == 1 else rng.dirichlet(np.ones(len(signs)))
        rows, values, ended = [], [], []
        for one in tried:
            if one.params[ORDER] not in self._number:
                continue
            if one.state == TrialState.COMPLETE:
                rows.append(self._number[one.params[ORDER]])
                values.append(one.values)
            elif one.state == TrialState.PRUNED:
                ended.append(self._number[one.params[ORDER]])
        if not rows:
            return [], np.zeros(0)
        scores = _standard(np.array(values, dtype=float) * signs) @ weights
        scores = np.concatenate([scores, np.full(len(ended), scores.min())])
        return rows + ended, _standard(scores[:, None])[:, 0]

    def _draw(self, x: Vector, y: Vector, rng: np.random.Generator) -> Vector:
        """One weight vector of the posterior. x shape: (n, F), y shape: (n)."""
        pairs = max(1, x.shape[1] - 1 - len(self._phases))
        deviations: Vector = np.full(x.shape[1], pairs**-0.5)
        deviations[0] = LEVEL
        noise = max(NOISES, key=lambda one: _evidence((x * deviations**2) @ x.T, y, one))
        precision = x.T @ x / noise**2 + np.diag(deviations**-2.0)
        lower = np.linalg.cholesky(precision)
        mean = np.linalg.solve(precision, x.T @ y / noise**2)
        drawn = mean + np.linalg.solve(lower.T, rng.standard_normal(len(mean)))
        return np.asarray(drawn, dtype=np.float64)

    def _costs(self, open_: Sequence[int], others: Iterable[FrozenTrial]) -> Vector:
        """Phases that still have to be trained for each order; what a gate ended was not trained after it."""
        tree: PrefixTree[str] = PrefixTree()
        for one in others:
            if one.params[ORDER] in self._number:
                whole = self._orders[self._number[one.params[ORDER]]]
                ended = one.user_attrs.get(FAILED, (None, None))[1]
                tree.add(whole if ended is None else ended.split(">"))
        costs = np.empty(len(open_))
        for place, number in enumerate(open_):
            order = self._orders[number]
            beginnings = (order[:end] for end in range(1, len(order) + 1))
            costs[place] = sum(
                one not in tree and not (self._trained is not None and self._trained(one)) for one in beginnings
            )
        return np.maximum(costs, 1.0)


def _evidence(covariance: NDArray[np.floating[Any]], y: Vector, noise: float) -> float:
    """The log marginal likelihood of the scores up to a constant (Rasmussen and Williams 2006, equation 2.30)."""
    lower = np.linalg.cholesky(covariance + noise**2 * np.eye(len(y)))
    white = np.linalg.solve(lower, y)
    return float(-0.5 * white @ white - np.log(np.diag(lower)).sum())


def _standard(values: Vector) -> Vector:
    """Each column with mean 0 and deviation 1 (0 where all are equal)."""
    spread = values.std(axis=0)
    found: Vector = (values - values.mean(axis=0)) / np.where(spread > 0, spread, 1.0)
    return found
