"""What a search space promises: points that an experiment can run, and that can be run again."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TYPE_CHECKING

from ...core.study.parameters import GRID_LIMIT, check_parameters, distributions, grid, point_key, row_of, size_of
from ...core.study.space import Curriculum, SearchSpace
from ...registry.errors import ConfigError
from ..check import NotApplicable, Subject

if TYPE_CHECKING:
    import optuna

#: The curriculum that spaces are asked about: the six phases of the paper.
CURRICULUM = Curriculum(
    phases=("foundation", "specialization", "alignment", "safety", "metacognition", "optimization"),
    uses={
        name: name for name in ("foundation", "specialization", "alignment", "safety", "metacognition", "optimization")
    },
    requires={
        "foundation": (),
        "specialization": ("knowledge",),
        "alignment": ("knowledge",),
        "safety": ("dialogue",),
        "metacognition": ("dialogue",),
        "optimization": ("dialogue",),
    },
    provides={
        "foundation": ("knowledge",),
        "specialization": ("specialists",),
        "alignment": ("dialogue",),
        "safety": ("refusals",),
        "metacognition": ("confidence",),
        "optimization": ("long-context", "draft"),
    },
)
_DRAWS = 20


def space_of(subject: Subject) -> SearchSpace:
    """What the component varies of that curriculum."""
    config = subject.config()
    target = subject.entry.load()
    try:
        found = (target() if config is None else target(config)).space(CURRICULUM)
    except ConfigError as error:
        raise AssertionError(f"It has nothing to say of six phases ({error}); give it an example.") from error
    assert isinstance(found, SearchSpace), f"It gave a {type(found).__name__} and no SearchSpace."
    return found


def valid(subject: Subject) -> None:
    """Rows have names of their own and name phases of the curriculum once each; parameters have something to choose."""
    space = space_of(subject)
    assert space.rows or space.parameters, "It varies nothing."
    names = [row.name for row in space.rows]
    assert len(set(names)) == len(names), "Two rows have one name."
    for row in space.rows:
        unknown = [phase for phase in row.phases if phase not in CURRICULUM.phases]
        assert not unknown, f"Row {row.name} names {', '.join(map(repr, unknown))}, which is no phase."
        assert len(set(row.phases)) == len(row.phases), f"Row {row.name} runs a phase twice: {row.order}."
    try:
        check_parameters(space.parameters)
    except ConfigError as error:
        raise AssertionError(str(error)) from error


def points(subject: Subject) -> None:
    """A finite space lists every point once: no two rows and settings mean the same."""
    space = space_of(subject)
    size = size_of(space)
    if size is None or size > GRID_LIMIT:
        raise NotApplicable("it has more points than can be listed")
    found = [point_key(point) for point in grid(space)]
    assert len(set(found)) == len(found) == size, f"Of {size} points {len(set(found))} are different."


def suggestions(subject: Subject) -> None:
    """Whatever is drawn is a row of the space, and settings within their ranges."""
    space = space_of(subject)
    allowed = distributions(space)
    if not allowed:
        raise NotApplicable("it has one point, so nothing is drawn")
    study = _study(0)
    for _ in range(_DRAWS):
        drawn = study.ask(allowed).params
        assert not space.rows or row_of(space, drawn) is not None, f"No row belongs to {drawn}."
        for key, value in drawn.items():
            assert allowed[key]._contains(allowed[key].to_internal_repr(value)), f"{key} was drawn as {value!r}."


def replay(subject: Subject) -> None:
    """A recorded trial draws the same point when it is run again, from what a study file holds of it."""
    space = space_of(subject)
    allowed = distributions(space)
    if not allowed:
        raise NotApplicable("it has one point, so nothing is drawn")
    study = _study(1)
    recorded = [dict(study.ask(allowed).params) for _ in range(_DRAWS)]
    again = _study(2)
    for params in recorded:
        again.enqueue_trial(json.loads(json.dumps(params)))
        try:
            drawn = again.ask(distributions(space_of(subject))).params
        except ValueError as error:
            raise AssertionError(f"{params} cannot be drawn again: {error}.") from error
        assert point_key(drawn) == point_key(params), f"{params} became {drawn}."
        assert row_of(space, drawn) == row_of(space, params), "Another row was drawn."


def _study(seed: int) -> optuna.Study:
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)  # it tells of every study in memory
    return optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed))


def determinism(subject: Subject) -> None:
    """It says the same of the same curriculum every time, in the same order: a study that goes on finds its trials."""
    assert space_of(subject) == space_of(subject), "Asked again it gave another space."


CHECKS: tuple[Callable[[Subject], None], ...] = (valid, points, suggestions, replay, determinism)
