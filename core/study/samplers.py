"""Optuna's samplers as a study needs them: seeded by the trial, so that no two workers draw alike."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from optuna.pruners import BasePruner, MedianPruner, NopPruner
from optuna.samplers import BaseSampler, GPSampler, NSGAIISampler, RandomSampler, TPESampler

from .precedence import PrecedenceSampler
from .space import SearchSpace

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.study import Study
    from optuna.trial import FrozenTrial, TrialState

    from .choosing import Choice

Factory = Callable[[int], BaseSampler]


class SeededByTrial(BaseSampler):
    """A sampler made anew for every trial, with a seed that follows from the study's and the trial's number.

    Two workers, or a study that is taken up again, would otherwise replay one stream of random numbers and propose what
    was proposed before. All that a sampler knows of a study it reads from the study's trials.
    """

    def __init__(self, factory: Factory, seed: int = 0) -> None:
        self._factory, self._seed = factory, seed
        self._current: tuple[int, BaseSampler] | None = None

    def of(self, number: int) -> BaseSampler:
        """The sampler of the trial of this number."""
        if self._current is None or self._current[0] != number:
            seed = int(np.random.SeedSequence([self._seed, number]).generate_state(1)[0])
            self._current = (number, self._factory(seed))
        return self._current[1]

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        return self.of(trial.number).infer_relative_search_space(study, trial)

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        return self.of(trial.number).sample_relative(study, trial, search_space)

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        return self.of(trial.number).sample_independent(study, trial, param_name, param_distribution)

    def before_trial(self, study: Study, trial: FrozenTrial) -> None:
        self.of(trial.number).before_trial(study, trial)

    def after_trial(self, study: Study, trial: FrozenTrial, state: TrialState, values: Sequence[float] | None) -> None:
        self.of(trial.number).after_trial(study, trial, state, values)


def sampler_of(
    choice: Choice,
    space: SearchSpace,
    *,
    seed: int = 0,
    trained: Callable[[tuple[str, ...]], bool] | None = None,
) -> BaseSampler:
    """The sampler that a study's choice names, for its space.

    ``exhaustive`` has its points in a queue, so that its sampler is never asked. TPE draws every parameter for itself:
    drawn together (its default) it gets stuck on orders that it has tried. A Gaussian process takes the constraints
    that trials set, and so do TPE and NSGA-II; ``precedence`` and ``random`` do not look at them.
    """
    if choice.sampler == "precedence":
        candidates = {row.key: row.order for row in space.rows}

        def precedence(one: int) -> BaseSampler:
            # Drawn by the trial's number already; what it does not know (parameters) goes to TPE.
            independent = TPESampler(seed=one, multivariate=False) if space.parameters else None
            return PrecedenceSampler(
                candidates, seed=seed, prior=space.rows[0].key, trained=trained, independent=independent
            )

        return SeededByTrial(precedence, seed)
    factories: dict[str, Factory] = {
        "exhaustive": lambda one: RandomSampler(seed=one),
        "gp": lambda one: GPSampler(seed=one, deterministic_objective=False),
        "nsga2": lambda one: NSGAIISampler(seed=one, population_size=20),
        "random": lambda one: RandomSampler(seed=one),
        "tpe": lambda one: TPESampler(seed=one, multivariate=False),
    }
    return SeededByTrial(factories[choice.sampler], seed)


def pruner_of(choice: Choice) -> BasePruner:
    """The median of earlier trials after the same phase, from the second phase and the sixth trial on; or none."""
    return MedianPruner(n_startup_trials=5, n_warmup_steps=1) if choice.prune else NopPruner()
