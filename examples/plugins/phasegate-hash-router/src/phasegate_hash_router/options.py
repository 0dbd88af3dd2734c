"""Options of the components, apart from them so that a plan checks an experiment without importing torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from pydantic import Field


@dataclass(frozen=True, slots=True, kw_only=True)
class HashRouterConfig:
    """The hash: ``bits`` hyperplanes cut the space of hidden states into 2^bits cells, and ``seed`` draws them and what
    each cell prefers.

    Few bits keep a token with its expert from context to context and load the experts unevenly; many bits do the
    reverse. The hash depends on these options and on the layer alone, not on the seed of the experiment.
    """

    bits: Annotated[int, Field(ge=1, le=16)] = 8
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class StabilityConfig:
    """Which text: the first ``tokens`` tokens of each document of a ``view`` in a ``split``.

    A token counts for ``same_token`` where at least ``least`` other documents' occurrences say where it usually goes.
    ``bootstrap`` is the number of replicates behind the interval of ``evenness``.
    """

    view: str = "text"
    split: str = "heldout"
    tokens: Annotated[int, Field(ge=1)] = 256
    least: Annotated[int, Field(ge=1)] = 3
    bootstrap: Annotated[int, Field(ge=2)] = 200
