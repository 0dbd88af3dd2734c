"""How a study is searched: the sampler that fits its space, how many trials, and what cannot go together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from ...registry.errors import ConfigError, blaming
from ...registry.suggest import did_you_mean, listing
from .parameters import check_parameters, grid, size_of
from .space import SearchSpace

if TYPE_CHECKING:
    from ..config.schema import StudySection

EXHAUSTIVE_ORDERS = 60  # orders up to which sampler: auto runs all
TRIALS = 60  # trials of a sampled study that does not say how many


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """The sampler by name, how many trials the study gets, the objectives and their directions, and whether trials
    are pruned by the median."""

    sampler: str
    trials: int
    objectives: tuple[str, ...]
    directions: tuple[Literal["maximize", "minimize"], ...]
    prune: bool


def choose(section: StudySection, space: SearchSpace) -> Choice:
    """What a study's section comes to for its space; ConfigError for what cannot be searched or does not go together.

    ``trials`` counts points that are carried out or copied; a finite space ends a study earlier.
    """
    if not space.rows and not space.parameters:
        raise ConfigError(
            f"the search space '{section.space.use}' varies nothing; give it orders, rows or parameters."
        ).within("study", "space")
    if not section.seeds:
        raise ConfigError(
            "study.seeds is empty; a study needs at least one seed, and three to say what is noise."
        ).within("study", "seeds")
    if len(set(section.seeds)) < len(section.seeds):
        twice = next(seed for number, seed in enumerate(section.seeds) if seed in section.seeds[:number])
        text = f"study.seeds names the seed {twice} twice; a repeated seed gives the same run and no new evidence."
        raise ConfigError(text).within("study", "seeds")
    _check_rows(space)
    with blaming("study", "space"):
        check_parameters(space.parameters)
    objectives = section.objectives or tuple(section.scores)[:1]
    if not objectives:
        raise ConfigError(
            "study.scores is empty; name at least one score that a run of the study is judged by."
        ).within("study", "scores")
    for name in objectives:
        if name not in section.scores:
            raise ConfigError(
                f"study.objectives names '{name}', which is no score.{did_you_mean(name, section.scores)} "
                f"Scores: {listing(section.scores)}."
            ).within("study", "objectives", str(objectives.index(name)))
    _check_pruning(section, space, objectives)
    sampler = _sampler(section, space)
    trials, size = section.trials, size_of(space)
    if trials is not None and trials < 1:
        raise ConfigError(f"study.trials is {trials}; a study needs at least one.").within("study", "trials")
    if sampler == "exhaustive":
        with blaming("study", "sampler"):
            size = sum(1 for _ in grid(space))
    if trials is None:
        trials = TRIALS if size is None or sampler != "exhaustive" else size
    if size is not None and sampler in ("exhaustive", "precedence"):
        trials = min(trials, size)  # these repeat no point
    return Choice(
        sampler=sampler,
        trials=trials,
        objectives=tuple(objectives),
        directions=tuple(section.scores[name].direction for name in objectives),
        prune=section.prune == "median",
    )


def _check_rows(space: SearchSpace) -> None:
    for words, found in (("name", [row.name for row in space.rows]), ("order", [row.key for row in space.rows])):
        twice = next((one for number, one in enumerate(found) if one in found[:number]), None)
        if twice is not None:
            raise ConfigError(
                f"two rows of the search space have the {words} '{twice}'; every row needs its own."
            ).within("study", "space")


def _check_pruning(section: StudySection, space: SearchSpace, objectives: tuple[str, ...]) -> None:
    if section.prune != "median":
        return
    if len(space.rows) > 1:
        raise ConfigError(
            "study.prune: median cannot judge orders: after k phases two orders are different curricula, and their "
            "numbers are not comparable. Say prune: never; with gates: enforce a failed gate still ends a run."
        ).within("study", "prune")
    if len(objectives) > 1:
        raise ConfigError(
            f"study.prune: median needs one objective, and this study has {len(objectives)} ({', '.join(objectives)}); "
            "name one in study.objectives, or say prune: never."
        ).within("study", "prune")


def _sampler(section: StudySection, space: SearchSpace) -> str:
    several = len(space.rows) > 1
    if section.sampler == "auto":
        if not space.parameters and (space.listed or len(space.rows) <= EXHAUSTIVE_ORDERS):
            return "exhaustive"
        return "precedence" if several else "gp"
    if section.sampler == "precedence" and not several:
        raise ConfigError(
            "study.sampler: precedence chooses among orders, and this space has "
            f"{'one' if space.rows else 'none'}; take gp or tpe for parameters."
        ).within("study", "sampler")
    return section.sampler
