"""How alike a model's experts are, and what quantizing does to them: facts of the weights, without a text."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ...evals.context import MeasureContext
from ...evals.measurement import Measurement, missing
from ...registry.errors import ConfigError
from .measuring import NotMeasured, check_finite, or_missing

if TYPE_CHECKING:
    import torch

_METRICS = ("similarity", "density", "density_all", "zeros", "error")


@dataclass(frozen=True, slots=True, kw_only=True)
class ExpertsConfig:
    """No options: the weights are looked at as they are."""


class ExpertsGate:
    """What the weights of the experts say by themselves, averaged over layers.

    Metrics: ``similarity``, the mean cosine between what two experts have learnt since they were cloned (or, where
    their origin is not known, between their differences from the mean; -1 / (E - 1) is the least). Of ternary codes:
    ``density``, the share in which neighbours by the router differ, which is what a delta file holds;
    ``density_all``, that of all pairs; ``zeros``, the share of zeros; ``error``, ||W - W_q||^2 / ||W||^2. All are
    exact.
    """

    def __init__(self, config: ExpertsConfig | None = None) -> None:
        self.config = config or ExpertsConfig()

    def measure(self, ctx: MeasureContext) -> Mapping[str, Measurement]:
        return or_missing(_METRICS, lambda: self._measure(ctx))

    def _measure(self, ctx: MeasureContext) -> Mapping[str, Measurement]:
        from ...core.model.distances import experts_by_layer

        check_finite(ctx)
        try:
            layers = experts_by_layer(ctx.model)
        except ConfigError as error:
            raise NotMeasured(str(error)) from error
        if min(len(ctx.model.get_parameter(names[0])) for names in layers.values()) < 2:
            raise NotMeasured("a layer of this model has a single expert, and there is none to compare it with")
        parts: dict[tuple[str, ...], Callable[[], tuple[float, ...]]] = {
            ("similarity",): lambda: (_similarity(ctx.model, layers),),
            ("density",): lambda: (_density(ctx, layers),),
            ("density_all",): lambda: (_density_all(ctx.model),),
            ("zeros", "error"): lambda: _rounding(ctx.model),
        }
        found: dict[str, Measurement] = {}
        for metrics, part in parts.items():
            try:
                values = zip(metrics, part(), strict=True)
            except (ConfigError, NotMeasured) as error:
                found |= {metric: missing(metric, str(error)) for metric in metrics}
                continue
            found |= {m: Measurement(metric=m, value=value, n=len(layers), kind="exact") for m, value in values}
        return found


def _similarity(model: Any, layers: Mapping[int, list[str]]) -> float:
    """Mean over layers and pairs of experts that moved at all."""
    import torch

    from ...core.model.companions import companions_of
    from ...core.model.distances import ancestors, centred_cosines

    origin = companions_of(model).get("origin")
    means = []
    for layer, names in layers.items():
        middles = None if origin is None else ancestors(origin, layer, names)
        with torch.no_grad():
            cosines, moved = centred_cosines([model.get_parameter(name) for name in names], middles)
        pairs = (moved & moved[:, None]).triu(1)
        if pairs.any():
            means.append(float(cosines[pairs].mean()))
    if not means:
        raise NotMeasured("the experts are still copies of one another, so they differ in no direction")
    return sum(means) / len(means)


def _density(ctx: MeasureContext, layers: Mapping[int, list[str]]) -> float:
    """Mean over layers and their routers' neighbours."""
    from ...core.model.distances import code_distances

    codes = _codes(ctx.model)
    means = []
    for _, layer, module in ctx.routers(ctx.model):
        edges: torch.Tensor | None = module.edges() if hasattr(module, "edges") else None
        if edges is None:
            raise NotMeasured(f"the {type(module).__name__} of this model does not know which experts are neighbours")
        differing = code_distances({name: codes[name] for name in layers[layer]})
        edges = edges.cpu()
        means.append(float(differing[edges[:, 0], edges[:, 1]].mean()))
    return sum(means) / len(means)


def _density_all(model: Any) -> float:
    from ...core.model.distances import code_distances

    differing = code_distances(_codes(model))
    experts = len(differing)
    return float(differing.sum()) / (experts * (experts - 1))


def _codes(model: Any) -> Mapping[str, Any]:
    from ...core.model.quantization import encode_experts

    return encode_experts(model)


def _rounding(model: Any) -> tuple[float, float]:
    from ...core.model.quantization import quantization_of

    quantization = quantization_of(model)
    if quantization is None:
        raise NotMeasured("the model has no quantizer")
    found = quantization.rounding()
    return found.zeros, found.error
