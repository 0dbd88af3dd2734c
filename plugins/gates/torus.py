"""How a text moves over the experts: by how many neighbours from token to token, and what became of the torus."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from ...evals.context import MeasureContext
from ...evals.intervals import z_quantile
from ...evals.measurement import Measurement, missing
from ...registry.errors import ConfigError
from .measuring import NotMeasured, check_finite, or_missing
from .texts import Texts, heldout_texts, resamples

if TYPE_CHECKING:
    import torch

    from ...evals.recording import Routers
    from ...evals.transitions import Transitions

_METRICS = ("same", "one_hop", "two_hop", "far", "distance", "drift", "unreached")


@dataclass(frozen=True, slots=True, kw_only=True)
class TorusConfig:
    """Which text: the first ``tokens`` tokens of each document of ``view`` and ``split``. ``bootstrap`` is the number
    of replicates."""

    view: str = "text"
    split: str = "heldout"
    tokens: int = 256
    bootstrap: Annotated[int, Field(ge=2)] = 200


class TorusGate:
    """Consecutive tokens of held-out text, and which experts they choose first.

    Metrics: ``same``, ``one_hop``, ``two_hop`` and ``far``, the shares of steps to the same expert, to a neighbour, to
    a neighbour's neighbour and beyond, averaged over layers (a router without neighbours has ``same`` only);
    ``distance``, the mean geodesic distance on the torus between the places of consecutive tokens; ``drift``, that of
    experts from where they began; ``unreached``, the experts, over all layers, that get no token. Intervals are normal
    with the bootstrap's standard error over documents (Efron 1979), drawn anew within each domain. 64 documents per
    domain unless the criterion says how many in all.
    """

    def __init__(self, config: TorusConfig | None = None) -> None:
        self.config = config or TorusConfig()

    def measure(self, ctx: MeasureContext) -> Mapping[str, Measurement]:
        return or_missing(_METRICS, lambda: self._measure(ctx))

    def _measure(self, ctx: MeasureContext) -> Mapping[str, Measurement]:
        from ...evals.transitions import count_transitions, hops_between

        check_finite(ctx)
        try:
            routers = ctx.routers(ctx.model)
        except ConfigError as error:
            raise NotMeasured(str(error)) from error
        edges = [_edges(module) for _, _, module in routers]
        empty = np.zeros((0, 2), dtype=np.int64)
        hops = [
            hops_between(empty if pairs is None else pairs, int(module.num_experts))
            for pairs, (_, _, module) in zip(edges, routers, strict=True)
        ]
        placed = bool(routers) and all(hasattr(module, "positions") for _, _, module in routers)
        texts = heldout_texts(ctx, self.config.view, self.config.split, self.config.tokens)
        counted = count_transitions(
            ctx.model,
            routers,
            texts.ids,
            hops,
            prefix=texts.prefix,
            batch_size=ctx.batch_size,
            distance=_step_lengths if placed else None,
        )
        if not counted.steps.any():
            raise NotMeasured("no held-out document has two tokens")
        found = self._shares(counted, texts, ctx.seed, placed)
        if any(pairs is None for pairs in edges):
            reason = "the router of this model does not know which experts are neighbours"
            found |= {metric: missing(metric, reason) for metric in ("one_hop", "two_hop", "far")}
        if placed:
            found["drift"] = Measurement(metric="drift", value=_drift(routers), n=len(routers), kind="exact")
        else:
            reason = "the router of this model has no positions on a torus"
            found |= {metric: missing(metric, reason) for metric in ("distance", "drift")}
        idle = sum(int((got == 0).sum()) for got in counted.tokens)
        return found | {"unreached": Measurement(metric="unreached", value=float(idle), n=len(texts.ids), kind="exact")}

    def _shares(self, counted: Transitions, texts: Texts, seed: int, placed: bool) -> dict[str, Measurement]:
        from ...evals.transitions import CLASSES

        times = resamples(texts.owners, self.config.bootstrap, seed)  # shape: (R, documents)
        z = z_quantile(0.95)

        def measured(metric: str, part: NDArray[Any]) -> Measurement:
            """The mean over layers of a sum over documents, (documents, L), per step."""
            steps = counted.steps.sum(axis=-1)  # shape: (documents, L)

            def ratio(weights: NDArray[Any]) -> NDArray[np.float64]:
                with np.errstate(invalid="ignore"):
                    return np.asarray(((weights @ part) / (weights @ steps)).mean(axis=-1), dtype=np.float64)

            value = float(ratio(np.ones(len(part))))
            half = z * float(np.std(ratio(times), ddof=1))
            interval = (value - half, value + half) if np.isfinite(half) else None
            return Measurement(metric=metric, value=value, n=len(part), interval=interval)

        found = {name: measured(name, counted.steps[..., place]) for place, name in enumerate(CLASSES)}
        return found | ({"distance": measured("distance", counted.lengths)} if placed else {})


def _edges(router: Any) -> NDArray[np.int64] | None:
    pairs = router.edges() if hasattr(router, "edges") else None
    return None if pairs is None else np.asarray(pairs.cpu().numpy(), dtype=np.int64)


def _step_lengths(router: Any, hidden: torch.Tensor) -> torch.Tensor:
    """How far each token is from the next. shape: (B, T, H) -> (B, T - 1)"""
    from ..routers.geometry import distance

    places = router.coordinates(hidden.flatten(0, 1)).float().view(*hidden.shape[:2], 3)
    return distance(places[:, :-1], places[:, 1:])


def _drift(routers: Routers) -> float:
    from ..routers.geometry import distance

    away = [distance(router.positions.detach().float(), router.home.float()).mean() for _, _, router in routers]
    return float(sum(away)) / len(away)
