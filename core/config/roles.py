"""The roles of parameters, by which an experiment says what trains and how fast."""

from __future__ import annotations

from ...registry.suggest import did_you_mean, listing
from .problems import Problems
from .schema import StepSection

ROLES = ("attention", "embedding", "experts", "ffn", "head", "norm", "other", "probes", "router")

#: All but experts, routers and probes.
TRUNK = "trunk"


def check_roles(step: StepSection, path: tuple[str, ...], problems: Problems) -> None:
    """Note every pattern that can mean no parameter: a word that is no role, since names of parameters have dots."""
    known = (TRUNK, *ROLES)
    places = [("freeze", str(number), pattern) for number, pattern in enumerate(step.freeze)]
    places += [("learning_rate_scale", pattern, pattern) for pattern in step.learning_rate_scale]
    for key, place, pattern in places:
        if pattern not in known and not any(mark in pattern for mark in ".*?["):
            text = f"{'.'.join((*path, key))} names '{pattern}', which is no role and no name of a parameter."
            problems.add((*path, key, place), f"{text}{did_you_mean(pattern, known)} Roles: {listing(known)}.")
