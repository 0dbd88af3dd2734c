"""What a model loses without an expert: paired changes of a score by domain, owners of experts, and how both agree.

Definitions: SPEC 2B.8, after Lu 2024 (2402.14800). dQ of a domain is the score without the experts minus the full
model's over the same documents, so that negative is harm; the score is the mean log-likelihood per token in nats.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .intervals import Interval, t_quantile
from .routing import Array

#: Where the gate leaves its tables, in its folder.
TABLES = "ablation.json"

#: The paper's table 7.4 has four of nine experts, in points of its quality score: mean, most affected domain, its drop.
PAPER: tuple[Mapping[str, Any], ...] = (
    {"expert": "E1", "mean": -4.2, "most": "programming", "drop": -11.3},
    {"expert": "E3", "mean": -3.8, "most": "STEM", "drop": -9.7},
    {"expert": "E5", "mean": -2.1, "most": "translation", "drop": -7.4},
    {"expert": "E9", "mean": -5.6, "most": "all", "drop": "-3 to -8"},
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """A mean change of a score, its standard error (infinite where unknown) and the degrees of freedom behind it."""

    value: float
    error: float
    freedom: float

    def bounds(self, confidence: float = 0.95) -> Interval:
        """Student's bounds, each one-sided with ``confidence``."""
        if not math.isfinite(self.error) or self.freedom <= 0:
            return (-math.inf, math.inf)
        half = t_quantile(confidence, self.freedom) * self.error
        return (self.value - half, self.value + half)

    def as_dict(self, confidence: float = 0.95) -> dict[str, float | None]:
        """JSON-able: value and bounds; None for a bound that is not known."""
        low, high = self.bounds(confidence)
        return {
            "value": round(self.value, 6),
            "low": round(low, 6) if math.isfinite(low) else None,
            "high": round(high, 6) if math.isfinite(high) else None,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Effect:
    """What taking experts away changed: by domain, and on average over domains, each of which counts the same."""

    domains: Mapping[str, Change]
    mean: Change

    @property
    def most(self) -> str:
        """The most affected domain: the one whose score falls most, or rises least."""
        return min(self.domains, key=lambda name: self.domains[name].value)

    @property
    def clear(self) -> bool:
        """Whether the most affected domain is so beyond the noise: its bounds lie below those of every other."""
        high = self.domains[self.most].bounds()[1]
        return all(high < change.bounds()[0] for name, change in self.domains.items() if name != self.most)

    def row(self, **facts: Any) -> dict[str, Any]:
        """A row of a table as JSON-able data, ``facts`` first."""
        return {
            **facts,
            "most": self.most,
            "clear": self.clear,
            "drop": round(self.domains[self.most].value, 6),
            "mean": self.mean.as_dict(),
            "domains": {name: change.as_dict() for name, change in self.domains.items()},
        }


def effect_of(differences: Array, owners: NDArray[np.int64], domains: Sequence[str]) -> Effect:
    """The effect behind per-document differences of a score, ``owners`` being each document's domain.

    Errors are those of paired means; the mean over domains adds their variances, with the degrees of freedom of
    Satterthwaite (1946, Biometrics Bulletin 2:110). shape: (documents,), (documents,) -> effect
    """
    changes = [_change(differences[owners == place]) for place in range(len(domains))]
    variances = [change.error**2 for change in changes]
    total = math.fsum(variances)
    parts = math.fsum(v**2 / c.freedom for v, c in zip(variances, changes, strict=True) if v and c.freedom > 0)
    mean = Change(
        value=math.fsum(change.value for change in changes) / len(changes),
        error=math.sqrt(total) / len(changes),
        freedom=total**2 / parts if parts and math.isfinite(total) else math.fsum(c.freedom for c in changes),
    )
    return Effect(domains=dict(zip(domains, changes, strict=True)), mean=mean)


def _change(differences: Array) -> Change:
    n = len(differences)
    if n < 2:
        return Change(value=float(differences.mean()) if n else math.nan, error=math.inf, freedom=0.0)
    return Change(
        value=float(differences.mean()), error=float(differences.std(ddof=1)) / math.sqrt(n), freedom=float(n - 1)
    )


def owners_of(shares: Array) -> NDArray[np.int64]:
    """The domain that owns each expert, -1 for an expert that no token goes to.

    The owner is the domain with the largest share of the expert's tokens when every domain has equally many: the
    argmax over D of s_D(e). It is also the domain with the largest lift s_D(e) / mean over D of s_D(e), so the two
    readings of *owner* agree, and neither depends on how much text of a domain was looked at.
    shape: (…, D, E) shares within each domain -> (…, E)
    """
    found = np.nan_to_num(shares)
    return np.where(found.max(axis=-2) > 0, found.argmax(axis=-2), -1).astype(np.int64)


def busiest(shares: Array, k: int = 2) -> NDArray[np.int64]:
    """The ``k`` experts with the largest share of each domain's tokens, the largest first.

    shape: (…, D, E) -> (…, D, k)
    """
    return np.argsort(-np.nan_to_num(shares), axis=-1, kind="stable")[..., :k].astype(np.int64)


def agreement(owners: Iterable[str | None], effects: Iterable[Effect]) -> dict[str, int]:
    """How many experts hurt their owner most when taken away (``hits`` of ``n``), and the same among those whose most
    affected domain is clear; experts without an owner do not count."""
    pairs = [(owner, effect) for owner, effect in zip(owners, effects, strict=True) if owner is not None]
    clear = [(owner, effect) for owner, effect in pairs if effect.clear]
    return {
        "hits": sum(owner == effect.most for owner, effect in pairs),
        "n": len(pairs),
        "clear_hits": sum(owner == effect.most for owner, effect in clear),
        "clear": len(clear),
    }


def rank_correlation(shares: Array, effects: Sequence[Effect]) -> float:
    """Spearman's correlation between what share of a domain's tokens an expert gets and how much the domain loses
    without it, over all experts and domains; NaN where either does not vary.

    shape: (experts, D) beside one effect per expert, with the domains in the same order
    """
    from scipy.stats import spearmanr

    harm = np.asarray([[-change.value for change in effect.domains.values()] for effect in effects])
    if np.ptp(shares) == 0 or np.ptp(harm) == 0:
        return math.nan
    return float(spearmanr(np.nan_to_num(shares).ravel(), harm.ravel()).statistic)


def least_harm(effects: Sequence[Effect], confidence: float = 0.95) -> tuple[float, Interval]:
    """The smallest mean fall of the score over several ablations, and bounds of the smallest true one.

    Below, the smallest of the single lower bounds holds with full confidence, whichever ablation is the least harmful
    one (an intersection-union test: Berger 1982, Technometrics 24:295); above, each bound is Bonferroni's.
    """
    harms = [-effect.mean.value for effect in effects]
    above = 1 - (1 - confidence) / len(effects)
    low = min(-effect.mean.bounds(confidence)[1] for effect in effects)
    high = min(-effect.mean.bounds(above)[0] for effect in effects)
    return min(harms), (low, high)
