"""Recording what routers do, by forward hooks, only while a loss with gradient is computed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from ...registry.errors import ConfigError
from ..model.parameters import routers_of
from .terms import RouterRecord


@dataclass(frozen=True, slots=True, eq=False)
class Recording:
    """The router outputs of one forward, by router position."""

    # logits, weights, index, hidden states
    outputs: dict[int, tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]] = field(default_factory=dict)


class RouterCapture:
    """Hooks on every router of a model (see ``routers_of``), in layer order.

    Hooks rather than model outputs: trl calls the backbone directly and asks for outputs in a second forward without
    gradient. A router is recorded only inside ``recording()`` and only with gradient enabled, so reference models,
    generation and evaluation leave no trace, and activation checkpointing counts once: its recomputation runs in the
    backward, outside. (Reentrant checkpointing would record without gradient; the trainers never use it.)
    """

    def __init__(self, model: nn.Module) -> None:
        self.routers = routers_of(model)
        self.top_k = max((int(module.top_k) for _, _, module in self.routers), default=1)  # type: ignore[arg-type]
        self._active: Recording | None = None
        self._handles = [
            module.register_forward_hook(self._hook(position)) for position, (_, _, module) in enumerate(self.routers)
        ]

    def _hook(self, position: int) -> Callable[..., None]:
        def record(_module: nn.Module, args: Any, output: Any) -> None:
            active = self._active
            if active is None or not torch.is_grad_enabled():
                return
            if position in active.outputs:
                raise ConfigError(
                    f"router '{self.routers[position][0]}' ran twice in one forward, which routing terms cannot tell "
                    "apart; give every layer a router of its own"
                )
            hidden = args[0].reshape(-1, args[0].shape[-1])
            active.outputs[position] = (output[0], output[1], output[2], hidden)

        return record

    @contextmanager
    def recording(self) -> Iterator[Recording]:
        """Record one forward."""
        previous, self._active = self._active, Recording()
        try:
            yield self._active
        finally:
            self._active = previous

    def records(self, *recordings: Recording) -> list[RouterRecord]:
        """One record per router, the tokens of all forwards concatenated; empty if nothing was recorded."""
        if not recordings or not recordings[0].outputs:
            return []
        merged = []
        for position, (name, layer, module) in enumerate(self.routers):
            parts = [recording.outputs[position] for recording in recordings]
            joined = parts[0] if len(parts) == 1 else tuple(torch.cat(part) for part in zip(*parts, strict=True))
            logits, weights, index, hidden = joined
            merged.append(
                RouterRecord(
                    name=name,
                    layer=layer,
                    module=module,
                    logits=logits,
                    weights=weights,
                    index=index,
                    hidden=hidden,
                )
            )
        return merged

    def remove(self) -> None:
        """Take the hooks off the model."""
        for handle in self._handles:
            handle.remove()
        self._handles = []
