"""Which domain each row of each optimiser step comes from: shares, batch types, replay.

Everything here is prefix-stable: the domains of step k depend on the shares and on k alone, so a longer run begins
exactly like a shorter one.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ...registry.errors import ConfigError, blaming
from ..config.schema import BatchSection, Experiment
from .source import PAPER_MIXTURE

#: Share of a general batch that is web text; the rest is drawn evenly from all domains (SPEC 2B.3).
WEB_SHARE = 0.7
#: Batch types of the specialization phase and their shares (SPEC 2B.3): they keep the first phase's marginals.
BATCH_TYPES: Mapping[str, tuple[tuple[str, ...], float]] = {
    "code": (("code",), 0.20),
    "science": (("science",), 0.16),
    "language": (("books", "portuguese"), 0.18),
    "reasoning": (("mathematics", "structured"), 0.10),
    "general": (("general",), 0.36),
}

#: Objectives that draw rows by domain.
DRAWN = ("causal", "distill", "dpo", "sft")

Shares = dict[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Slot:
    """One row to be drawn: its domain, and whether it replays an earlier step."""

    domain: str
    replay: bool = False


class Spread:
    """Deals out names so that after n draws each has share*n of them, within one (credits, largest first)."""

    def __init__(self, shares: Mapping[str, float]) -> None:
        self._shares = {name: share for name, share in shares.items() if share > 0}
        self._credit = dict.fromkeys(self._shares, 0.0)

    def draw(self) -> str:
        credit = self._credit
        for name, share in self._shares.items():
            credit[name] += share
        best = max(credit, key=credit.__getitem__)
        credit[best] -= 1.0
        return best


class Count:
    """Rounds a fractional number per step to whole ones that add up: 11.2 gives 11, 11, 12, 11, 11, …"""

    def __init__(self, per_step: float) -> None:
        self._per_step, self._step, self._given = per_step, 0, 0

    def draw(self) -> int:
        self._step += 1
        now = int(self._per_step * self._step + 1e-9) - self._given
        self._given += now
        return now


def normalised(shares: Mapping[str, float]) -> Shares:
    """Shares that add up to one."""
    total = sum(shares.values())
    return {name: share / total for name, share in shares.items() if share > 0}


def mixture_of(section: BatchSection, domains: Sequence[str], natural: Mapping[str, float] | None = None) -> Shares:
    """The share of each domain: what the section says, else ``natural``, else the paper's (even, if a domain is
    not the paper's). Domains of the corpus that the section does not name get nothing."""
    if section.mixture:
        for name, share in section.mixture.items():
            _known(name, domains, "batches.mixture", "mixture", name)
            if share < 0:
                raise ConfigError(f"batches.mixture gives {name!r} the share {share}; shares are not negative.")
        if not any(section.mixture.values()):
            raise ConfigError("batches.mixture gives every domain the share 0; give at least one domain a share.")
        return normalised({name: section.mixture[name] for name in domains if name in section.mixture})
    if natural is not None:
        return normalised({name: natural[name] for name in domains if name in natural})
    if all(name in PAPER_MIXTURE for name in domains):
        return normalised({name: PAPER_MIXTURE[name] for name in domains})
    return normalised(dict.fromkeys(domains, 1.0))


def batch_types(section: BatchSection, domains: Sequence[str], mixture: Shares) -> tuple[dict[str, Shares], Shares]:
    """The batch types (name -> shares of its domains) and how often each is primary.

    Default types name the paper's domains; those that the corpus lacks fall away, and a corpus with other domains
    gets one type per domain, as often as the mixture has it.
    """
    members_of: Mapping[str, Sequence[str]]
    if section.types:
        members_of = section.types
        for name, members in section.types.items():
            if not members:
                raise ConfigError(f"batches.types.{name} names no domain; give it one, or leave the type out.").within(
                    "types", name
                )
            for number, member in enumerate(members):
                _known(member, domains, f"batches.types.{name}", "types", name, str(number))
        often = {name: sum(mixture.get(m, 0.0) for m in members) for name, members in section.types.items()}
    elif all(name in PAPER_MIXTURE for name in domains):
        here = {name: tuple(m for m in members if m in domains) for name, (members, _) in BATCH_TYPES.items()}
        members_of = {name: members for name, members in here.items() if members}
        often = {name: BATCH_TYPES[name][1] for name in members_of}
    else:
        members_of = {name: (name,) for name in domains}
        often = dict(mixture)
    for name in section.type_shares:
        _known(name, tuple(members_of), "batches.type_shares", "type_shares", name)
    if section.type_shares:
        often = {name: section.type_shares.get(name, 0.0) for name in members_of}
    types = {}
    for name in members_of:
        inside = {member: mixture.get(member, 0.0) for member in members_of[name]}
        types[name] = normalised(inside if any(inside.values()) else dict.fromkeys(inside, 1.0))
    if not any(often.values()):
        raise ConfigError("batches.type_shares gives every batch type a share of 0; give at least one a share.").within(
            "type_shares"
        )
    return types, normalised(often)


def general_mixture(domains: Sequence[str]) -> Shares:
    """70 % general text and 30 % evenly from all domains; even where no domain is called general."""
    even = dict.fromkeys(domains, 1 / len(domains))
    if "general" not in domains:
        return even
    return {name: (1 - WEB_SHARE) * share + (WEB_SHARE if name == "general" else 0.0) for name, share in even.items()}


def marginal(section: BatchSection, domains: Sequence[str], natural: Mapping[str, float] | None = None) -> Shares:
    """The long-run share of every domain that a batch section draws."""
    mixture = mixture_of(section, domains, natural)
    if section.kind == "uniform":
        return mixture
    types, often = batch_types(section, domains, mixture)
    shares = {name: (1 - section.primary) * share for name, share in general_mixture(domains).items()}
    for name, share in often.items():
        for member, inside in types[name].items():
            shares[member] = shares.get(member, 0.0) + section.primary * share * inside
    return normalised(shares)


def deal(
    section: BatchSection,
    domains: Sequence[str],
    *,
    steps: int,
    rows: int,
    natural: Mapping[str, float] | None = None,
    replay_share: float = 0.0,
    replay_mixture: Mapping[str, float] | None = None,
) -> list[list[Slot]]:
    """The rows of every step as slots: new rows by mixture or batch type, then replayed ones.

    In a concentrated step ``primary`` of the new rows are of one batch type, the rest of the general mixture.
    """
    if not 0 <= section.primary <= 1:
        raise ConfigError(f"batches.primary is {section.primary}, but a share between 0 and 1 is needed.")
    mixture = mixture_of(section, domains, natural)
    old = Count(replay_share * rows if replay_mixture else 0.0)
    old_spread = Spread(replay_mixture or {})
    new_spread = Spread(mixture)
    if section.kind == "concentrated":
        types, often = batch_types(section, domains, mixture)
        type_spread, inside = Spread(often), {name: Spread(shares) for name, shares in types.items()}
        mixed = Spread(general_mixture(domains))
    dealt = []
    carried: dict[str, float] = {}  # per type: one for all would fall into step with the order of the types
    for _ in range(steps):
        replayed = old.draw()
        fresh = rows - replayed
        if section.kind == "uniform":
            slots = [Slot(domain=new_spread.draw()) for _ in range(fresh)]
        else:
            name = type_spread.draw()
            carried[name] = carried.get(name, 0.0) + section.primary * fresh
            first = min(fresh, int(carried[name] + 1e-9))
            carried[name] -= first
            slots = [Slot(domain=inside[name].draw()) for _ in range(first)]
            slots += [Slot(domain=mixed.draw()) for _ in range(fresh - first)]
        slots += [Slot(domain=old_spread.draw(), replay=True) for _ in range(replayed)]
        dealt.append(slots)
    return dealt


def check_domains(experiment: Experiment, domains: Sequence[str]) -> None:
    """Raise ``ConfigError`` for the first step that draws from a domain or a batch type that is not there."""
    for name, phase in experiment.phases.items():
        for step, section in phase.steps.items():
            if section.objective not in DRAWN:
                continue
            with blaming("phases", name, "steps", step, "batches"):
                marginal(section.batches, domains)


def _known(name: str, names: Sequence[str], where: str, *place: str) -> None:
    if name not in names:
        near = difflib.get_close_matches(name, names, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(sorted(names))}."
        raise ConfigError(f"{where} names {name!r}, which is not there; {hint}").within(*place)
