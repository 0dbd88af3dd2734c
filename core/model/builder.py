"""What a model component is given, what it says about its model before building it, and what it must offer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from ..config.schema import Ref


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelContext:
    """What is known when a model component is built; ``derived`` holds what the dial chose. ``mixer`` None means
    attention, ``quantizer`` None that no weights are quantized.

    Relative paths in a component's options start from ``base`` (the working directory if None).
    """

    registry: Any
    router: Ref
    derived: Mapping[str, Any]
    vocab_size: int
    sequence_length: int
    base: Path | None = None
    mixer: Ref | None = None
    quantizer: Ref | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFacts:
    """Counts of a model: parameters in all, parameters one token passes, by role, and training FLOPs per token.

    ``by_role`` counts every parameter once (a tied head is counted as embedding).
    """

    total: int
    active: int
    by_role: Mapping[str, int]
    flops_per_token: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Positions:
    """What a model is first built with: how many positions, the base of its rotary frequencies, and how many
    dimensions of a head they turn."""

    length: int
    base: float
    dim: int


class ModelBuilder(Protocol):
    """A model component: built as ``target(config, context=ModelContext(...))``.

    It may also offer ``upcycled(experts) -> ModelFacts``, the counts of the model once its dense form has got experts,
    which a builder of dense models needs for a plan; and ``positions() -> Positions``; a context target that its model
    cannot reach is then refused when the plan is made, otherwise when the step begins.
    """

    def facts(self) -> ModelFacts:
        """Count without allocating memory."""
        ...

    def build(self, seed: int) -> PreTrainedModel:
        """The model in fp32 on the CPU; equal seeds give equal bits, and global random state stays as it was."""
        ...
