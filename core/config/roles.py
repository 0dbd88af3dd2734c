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
    for key, patterns in (("freeze", enumerate(step.freeze)), ("learning_rate_scale", _twice(step))):
        for place, pattern in patterns:
            if pattern in {TRUNK, *ROLES} or any(mark in pattern for mark in ".*?["):
                continue
            known = (TRUNK, *ROLES)
            text = f"{'.'.join((*path, key))} names '{pattern}', which is no role and no name of a parameter."
            problems.add((*path, key, str(place)), f"{text}{did_you_mean(pattern, known)} Roles: {listing(known)}.")


def _twice(step: StepSection) -> list[tuple[str, str]]:
    return [(pattern, pattern) for pattern in step.learning_rate_scale]
