"""Specialisation: every domain to few experts, but not to one, while the load stays uniform overall."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated

import torch
from pydantic import Field

from ...core.training.routing import routed
from ...core.training.terms import LossContext, LossSetup
from ...core.training.window import LoadWindow
from ...registry.errors import ConfigError

_SMALLEST = 1e-6  # keeps the slope of the entropy finite where an expert has no load


@dataclass(frozen=True, slots=True, kw_only=True)
class DomainEntropyConfig:
    """Bounds in nats on the routing entropy of hard load, per layer.

    Domains in ``general`` only have a floor, ``general_floor``; all others are kept between ``floor`` and
    ``target_high``. ``uniformity`` weighs ln E minus the entropy of the overall load, ``cap_weight`` any expert's share
    of one domain above ``cap``. ``window``: optimiser steps that the load looks back on.
    """

    target_high: float = 1.1
    floor: float = 0.9
    general: tuple[str, ...] = ("general",)
    general_floor: float = 1.5
    uniformity: float = 1.0
    cap: float = 0.7
    cap_weight: float = 0.0
    window: Annotated[float, Field(ge=1.0)] = 16.0


class DomainEntropy:
    """Per layer: mean over domains of relu(H_D - target_high) + relu(floor - H_D) (general: relu(general_floor - H)),
    plus uniformity * (ln E - H_all), plus cap_weight * mean over domains of sum_e relu(s_D,e - cap); mean over layers.

    Straight-through: the *value* is that of the hard load s_D in a window of optimiser steps over all processes, as of
    the start of the step; the *gradient* is taken there and flows through the mean softmax probability of the
    domain's tokens. (A hinge on soft probabilities overshoots, since hard usage is sharper; a hinge on one
    domain-concentrated batch sees only that batch.) Linear in the probabilities, so exact under accumulation and data
    parallelism. Tokens of unknown domain do not count; a domain without tokens in a step gets no gradient from it.
    """

    def __init__(self, config: DomainEntropyConfig, setup: LossSetup) -> None:
        if setup.experts < 2:
            raise ConfigError("the loss 'domain-entropy' needs a model with experts; remove it from the step")
        if not setup.domains:
            raise ConfigError("the loss 'domain-entropy' needs data with domains; remove it from the step")
        highest = math.log(setup.experts)
        if not 0.0 <= config.floor <= config.target_high <= highest or config.general_floor > highest:
            raise ConfigError(
                f"the loss 'domain-entropy' needs 0 <= floor <= target_high <= ln {setup.experts} = {highest:.2f} nats "
                f"and general_floor below that, but has floor {config.floor}, target_high {config.target_high}, "
                f"general_floor {config.general_floor}; change its options"
            )
        general = [domain in config.general for domain in setup.domains]
        self._config = config
        self._setup = setup
        self._high = torch.tensor([math.inf if is_general else config.target_high for is_general in general])
        self._floor = torch.tensor([config.general_floor if is_general else config.floor for is_general in general])
        self._window = LoadWindow(config.window)
        self._plane: tuple[torch.Tensor, torch.Tensor, torch.Tensor] | None = None

    def __call__(self, ctx: LossContext) -> torch.Tensor:
        routing = routed(ctx)
        self._window.add(routing.counts[:, :-2])
        domains, mean = routing.domain_means(), routing.known_mean()  # shapes: (L, D, E), (L, E)
        if self._plane is None:
            self._plane = self._linearise(domains.detach(), mean.detach())
        value, by_domain, overall = self._plane
        through = (by_domain * domains).sum() + (overall * mean).sum()
        return value + through - through.detach()

    @torch.no_grad()
    def _linearise(self, domains: torch.Tensor, mean: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """The value at the window's load and its slopes there with respect to s_D (L, D, E) and s_all (L, E)."""
        config = self._config
        layers, count, experts = domains.shape
        high, floor = self._high.to(domains.device), self._floor.to(domains.device)
        share = self._window.share(domains.new_empty(layers, count, experts))
        entropy = torch.special.entr(share).sum(-1)  # shape: (L, D)
        above, below, over = (entropy - high).relu(), (floor - entropy).relu(), (share - config.cap).relu()
        # dH/ds_e = -ln s_e, up to a constant that a softmax cannot follow.
        slope = -share.clamp(min=_SMALLEST).log()
        side = (above > 0).to(share.dtype) - (below > 0).to(share.dtype)
        by_domain = side[..., None] * slope + config.cap_weight * (over > 0).to(share.dtype)
        everything = self._window.total(mean)
        overall = config.uniformity * everything.clamp(min=_SMALLEST).log()
        value = (above + below + config.cap_weight * over.sum(-1)).mean()
        value += config.uniformity * (math.log(experts) - torch.special.entr(everything).sum(-1)).mean()
        return value, by_domain / (layers * count), overall / layers

    def after_step(self) -> None:
        self._window.advance()
        self._plane = None

    def state_dict(self) -> Mapping[str, torch.Tensor]:
        return self._window.state_dict()

    def load_state_dict(self, state: Mapping[str, torch.Tensor]) -> None:
        self._window.load_state_dict(state, next(self._setup.model.parameters()).device)
        self._plane = None
