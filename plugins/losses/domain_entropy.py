"""Specialisation: every domain to few experts, but not to one, while the load stays uniform overall."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch

from ...core.training.routing import routed
from ...core.training.terms import LossContext, LossSetup
from ...core.training.window import LoadWindow
from ...registry.errors import ConfigError
from .options import DomainEntropyConfig

_SMALLEST = 1e-6  # keeps the slope of the entropy finite where an expert has no load


class DomainEntropy:
    """Per layer: mean over domains of relu(H_D - target_high) + relu(floor - H_D) (general: relu(general_floor - H)),
    plus uniformity * (ln E - H_all), plus cap_weight * mean over domains of sum_e relu(s_D,e - cap); mean over layers.
    H_all is the entropy of sum_D pi_D s_D, with pi_D the domains' shares of all tokens so far: put together from the
    domains, it does not follow whatever type of batch came last, so that the window can be short.

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
        self._tokens: torch.Tensor | None = None  # shape: (D,), of all optimiser steps so far
        self._plane: tuple[torch.Tensor, torch.Tensor] | None = None

    def __call__(self, ctx: LossContext) -> torch.Tensor:
        routing = routed(ctx)
        self._window.add(routing.counts[:, :-2])
        means = routing.domain_means()  # shape: (L, D, E)
        if self._plane is None:
            self._tokens = routing.domain_tokens if self._tokens is None else self._tokens + routing.domain_tokens
            self._plane = self._linearise(means.detach(), self._tokens)
        value, slope = self._plane
        through = (slope * means).sum()
        return value + through - through.detach()

    @torch.no_grad()
    def _linearise(self, like: torch.Tensor, tokens: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The value at the window's load and its slope there with respect to every s_D, shape (L, D, E)."""
        config = self._config
        layers, domains, experts = like.shape
        high, floor = self._high.to(like.device), self._floor.to(like.device)
        share = self._window.share(like)
        entropy = torch.special.entr(share).sum(-1)  # shape: (L, D)
        above, below, over = (entropy - high).relu(), (floor - entropy).relu(), (share - config.cap).relu()
        # dH/ds_e = -ln s_e, up to a constant that a softmax cannot follow.
        side = (above > 0).to(share.dtype) - (below > 0).to(share.dtype)
        by_domain = config.cap_weight * (over > 0).to(share.dtype) - side[..., None] * _log(share)
        mixture = (tokens / tokens.sum().clamp(min=1))[:, None]
        load = (mixture * share).sum(1)  # shape: (L, E)
        overall = config.uniformity * _log(load)
        value = (above + below + config.cap_weight * over.sum(-1)).mean()
        value += config.uniformity * (math.log(experts) - torch.special.entr(load).sum(-1)).mean()
        return value, (by_domain / domains + mixture * overall[:, None]) / layers

    def after_step(self) -> None:
        self._window.advance()
        self._plane = None

    def state_dict(self) -> Mapping[str, torch.Tensor]:
        tokens = {} if self._tokens is None else {"tokens": self._tokens}
        return {**self._window.state_dict(), **tokens}

    def load_state_dict(self, state: Mapping[str, torch.Tensor]) -> None:
        device = next(self._setup.model.parameters()).device
        self._window.load_state_dict(state, device)
        self._tokens = state["tokens"].to(device) if "tokens" in state else None
        self._plane = None


def _log(share: torch.Tensor) -> torch.Tensor:
    return share.clamp(min=_SMALLEST).log()
