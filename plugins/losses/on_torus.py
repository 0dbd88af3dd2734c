"""What the losses of the torus router share: which models they work on, and where tokens and experts are."""

from __future__ import annotations

from typing import Any

import torch

from ...core.model.parameters import routers_of
from ...core.training.terms import LossContext, LossSetup, RouterRecord
from ...registry.errors import ConfigError


def need_positions(setup: LossSetup, loss: str) -> list[Any]:
    """The routers of a model in layer order, all of which have positions on the torus; ``ConfigError`` otherwise."""
    routers = [module for _, _, module in routers_of(setup.model)]
    if not routers or not all(hasattr(router, "positions") for router in routers):
        raise ConfigError(
            f"the loss '{loss}' moves tokens or experts on a torus and needs the router torus; remove the loss or set "
            "router: torus"
        )
    return routers


def neighbours(setup: LossSetup, loss: str) -> dict[int, torch.Tensor]:
    """Pairs of neighbouring experts by layer, shape (M, 2); ``ConfigError`` for a router that knows none."""
    found: dict[int, torch.Tensor] = {}
    module: Any
    for _, layer, module in routers_of(setup.model):
        edges = module.edges() if hasattr(module, "edges") else None
        if edges is None:
            raise ConfigError(
                f"the loss '{loss}' asks which experts are neighbours, and this model's {type(module).__name__} knows "
                "none; set router: torus, or change the loss's options"
            )
        found[layer] = edges.cpu()
    return found


def token_places(record: RouterRecord, mask: torch.Tensor) -> torch.Tensor:
    """Where the router put its tokens, shape (N, 3), with gradient; what padding holds does not reach it."""
    assert record.hidden is not None, "the trainer records what a router reads"
    router: Any = record.module
    # Not afterwards: padding must not reach a weight's gradient even as 0 * inf.
    hidden = torch.where(mask[:, None], record.hidden, 0.0)
    places: torch.Tensor = router.coordinates(hidden)
    return places


def following(ctx: LossContext) -> torch.Tensor:
    """Whether the token after each one goes on with its text, both valid, shape (N - 1,), bool."""
    pairs = ctx.mask[:-1] & ctx.mask[1:]
    return pairs if ctx.follows is None else pairs & ctx.follows[1:]


def once(routers: list[Any]) -> list[Any]:
    """One router for each set of positions, which layers share or have each for themselves."""
    return list({id(router.positions): router for router in routers}.values())
