"""What a gate may look at while it measures a model."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from .measurement import Measurement

if TYPE_CHECKING:
    from datasets import Dataset

Routers = Callable[[Any], Sequence[tuple[str, int, Any]]]


@dataclass(frozen=True, slots=True, kw_only=True)
class MeasureContext:
    """One model, its data and where evidence goes.

    ``view(name, split)`` gives a data view of the corpus; ``documents`` caps how many documents a gate looks at
    (None: the gate's own number); ``history`` is the training log of the phase, oldest first; ``folder`` receives
    the task packs and answers; ``root`` is the data root that relative benchmark paths start from; ``routers``
    lists ``(name, layer, module)`` of a model; ``length`` is the sequence length the model was trained with.
    """

    model: Any
    tokenizer: Any
    view: Callable[[str, Any], Dataset]
    domains: tuple[str, ...]
    folder: Path
    root: Path
    routers: Routers
    documents: int | None = None
    seed: int = 0
    batch_size: int = 64
    history: Sequence[Mapping[str, float]] = field(default=())
    length: int | None = None


class Gate(Protocol):
    """A gate component: built as ``target(config)``, it measures and never judges."""

    def measure(self, ctx: MeasureContext) -> Mapping[str, Measurement]: ...
