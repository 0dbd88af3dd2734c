"""Who routes what: load, entropy and mutual information of hard routing on held-out text."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ...evals.context import MeasureContext
from ...evals.intervals import z_quantile
from ...evals.measurement import Measurement
from ...evals.routing import (
    Array,
    dead_experts,
    domain_shares,
    entropy,
    gini,
    load_shares,
    mutual_information,
    top_share,
)
from ...registry.errors import ConfigError
from .measuring import NotMeasured, check_finite, or_missing
from .texts import heldout_texts, resamples

if TYPE_CHECKING:
    from ...evals.recording import Routers

_METRICS = (
    "load_min",
    "load_max",
    "load_mean_min",
    "load_mean_max",
    "gini",
    "gini_max",
    "entropy_mean",
    "mutual_information",
    "dead",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class RoutingConfig:
    """Which text: the first ``tokens`` tokens of each document of ``view`` and ``split`` (the trained length at most).

    ``mixture`` weighs the domains for load and mutual information (equal where empty); give the training mixture
    to ask for the load the balance terms see. ``bootstrap`` is the number of replicates.
    """

    view: str = "text"
    split: str = "heldout"
    tokens: int = 256
    mixture: Mapping[str, float] = field(default_factory=dict)
    bootstrap: int = 200


class RoutingGate:
    """Hard routing on held-out text, counted per layer and domain, as training sees it: each document and the
    separator behind it, without padding.

    Metrics: ``load_min``, ``load_max`` (share of slots, over all layers and experts), ``load_mean_min``,
    ``load_mean_max`` (of shares averaged over layers), ``gini`` and ``gini_max`` (Gini coefficient of a layer's load,
    the mean and the worst over layers; 0 is uniform), ``entropy/<domain>`` and ``top2/<domain>`` (averages over
    layers; entropy in nats, ln 9 = 2.197 is uniform over nine experts), ``entropy_mean`` (over domains),
    ``mutual_information`` (expert and domain, nats) and ``dead`` (experts with less than a hundredth of uniform
    load). Intervals are normal with the bootstrap's standard error over documents (Efron 1979), since nothing
    closed exists. 64 documents per domain unless the criterion says how many in all.
    """

    def __init__(self, config: RoutingConfig | None = None) -> None:
        self.config = config or RoutingConfig()

    def measure(self, ctx: MeasureContext) -> Mapping[str, Measurement]:
        return or_missing(_METRICS, lambda: self._measure(ctx))

    def _measure(self, ctx: MeasureContext) -> Mapping[str, Measurement]:
        from ...evals.recording import count_routes

        check_finite(ctx)
        texts = heldout_texts(ctx, self.config.view, self.config.split, self.config.tokens)
        weights = self._weights(texts.domains)
        counts = count_routes(ctx.model, self._routers(ctx), texts.ids, prefix=texts.prefix, batch_size=ctx.batch_size)
        return _measurements(counts, texts.owners, texts.domains, weights, self.config.bootstrap, ctx.seed)

    def _routers(self, ctx: MeasureContext) -> Routers:
        try:
            return ctx.routers(ctx.model)
        except ConfigError as error:
            raise NotMeasured(str(error)) from error

    def _weights(self, domains: Sequence[str]) -> Array | None:
        if not self.config.mixture:
            return None
        weights = np.asarray([self.config.mixture.get(name, 0.0) for name in domains], dtype=np.float64)
        if weights.sum() <= 0:
            raise NotMeasured("none of the domains of 'mixture' has held-out text")
        return weights


def _measurements(
    counts: NDArray[np.int64],
    owners: NDArray[np.int64],
    domains: Sequence[str],
    weights: Array | None,
    replicates: int,
    seed: int,
) -> dict[str, Measurement]:
    """shape: (documents, L, E), (documents,) -> measurements by metric"""
    per_domain = np.stack([counts[owners == d].sum(axis=0) for d in range(len(domains))], axis=1)  # shape: (L, D, E)
    times = resamples(owners, replicates, seed)  # shape: (R, documents)
    drawn = [np.tensordot(times[:, owners == d], counts[owners == d], 1) for d in range(len(domains))]
    shares, replicas = domain_shares(per_domain), domain_shares(np.stack(drawn, axis=2))  # shape: (R, L, D, E)
    z = z_quantile(0.95)
    tables = {
        "domains": list(domains),
        "shares": np.round(shares, 6).tolist(),
        "load": np.round(load_shares(shares, weights), 6).tolist(),
        "tokens": per_domain.sum(axis=(0, 2)).tolist(),
    }

    def measured(name: str, statistic: Callable[[Array], Any], n: int, evidence: Mapping[str, Any]) -> Measurement:
        value = float(statistic(shares))
        half = z * float(np.std(statistic(replicas), ddof=1)) if replicates > 1 else float("nan")
        interval = (value - half, value + half) if np.isfinite(half) else None
        return Measurement(metric=name, value=value, n=n, interval=interval, evidence=evidence)

    statistics: dict[str, Callable[[Array], Any]] = {
        "load_min": lambda s: load_shares(s, weights).min(axis=(-2, -1)),
        "load_max": lambda s: load_shares(s, weights).max(axis=(-2, -1)),
        "load_mean_min": lambda s: load_shares(s, weights).mean(axis=-2).min(axis=-1),
        "load_mean_max": lambda s: load_shares(s, weights).mean(axis=-2).max(axis=-1),
        "gini": lambda s: gini(load_shares(s, weights)).mean(axis=-1),
        "gini_max": lambda s: gini(load_shares(s, weights)).max(axis=-1),
        "entropy_mean": lambda s: entropy(s).mean(axis=(-2, -1)),
        "mutual_information": lambda s: mutual_information(s, weights).mean(axis=-1),
    }
    found = [
        measured(name, statistic, len(counts), tables if name == "entropy_mean" else {})
        for name, statistic in statistics.items()
    ]
    for d, domain in enumerate(domains):
        n = int((owners == d).sum())
        found.append(measured(f"entropy/{domain}", lambda s, d=d: entropy(s)[..., d].mean(axis=-1), n, {}))  # type: ignore[misc]
        found.append(measured(f"top2/{domain}", lambda s, d=d: top_share(s)[..., d].mean(axis=-1), n, {}))  # type: ignore[misc]
    dead = int(dead_experts(load_shares(shares, weights)))
    found.append(Measurement(metric="dead", value=float(dead), n=len(counts), kind="exact"))
    return {measurement.metric: measurement for measurement in found}
