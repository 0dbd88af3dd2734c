"""Delta files between the experts of one model, and what they save."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

from ...registry.errors import ConfigError
from .delta_file import DeltaReport, write_delta
from .packed import check_codes, is_packed, load_packed, new_folder, read_experts, split_experts
from .parameters import routers_of
from .router import RouterBase
from .trit_file import ExpertCodes

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True, slots=True, kw_only=True)
class DeltasReport:
    """What was written for all ``pairs``, one file each; means are over pairs."""

    folder: Path
    pairs: tuple[DeltaReport, ...]

    @property
    def full(self) -> int:
        """Pairs whose delta had been no smaller than the whole expert, which was written instead."""
        return sum(pair.full for pair in self.pairs)

    @property
    def bytes(self) -> int:
        """Bytes of all files; one that several pairs share counts once."""
        return sum({pair.file: pair.bytes for pair in self.pairs}.values())

    @property
    def read(self) -> int:
        """Bytes that are read when every pair is gone over once, however many files they are."""
        return sum(pair.bytes for pair in self.pairs)

    @property
    def full_bytes(self) -> int:
        """Bytes that a whole expert for every pair would take."""
        return sum(pair.full_bytes for pair in self.pairs)

    @property
    def density(self) -> float:
        """The mean share of weights that differ."""
        return fmean(pair.density for pair in self.pairs)

    @property
    def measured(self) -> float:
        """Mean bits per weight that positions and changes take in the deltas."""
        return fmean(pair.measured for pair in self.pairs)

    @property
    def bound(self) -> float:
        """Mean bits per weight below which no code gets that knows the densities alone."""
        return fmean(pair.bound for pair in self.pairs)


def export_deltas(
    folder_in: str | os.PathLike[str], folder_out: str | os.PathLike[str], registry: Any, *, all_pairs: bool = False
) -> DeltasReport:
    """Write the delta files of the model in ``folder_in``, packed or with quantized experts, to the new folder
    ``folder_out``; errors are those of ``pairs_of``, ``write_deltas`` and of reading the model."""
    experts: Sequence[ExpertCodes]
    if is_packed(folder_in):
        model, experts = load_packed(folder_in, registry), read_experts(folder_in)
        return write_deltas(experts, pairs_of(model, all_pairs=all_pairs), folder_out)
    from .loading import load_model
    from .quantization import encode_experts

    model = load_model(folder_in, registry)
    pairs = pairs_of(model, all_pairs=all_pairs)
    codes = encode_experts(model)
    check_codes(model, codes)
    return write_deltas(split_experts(codes), pairs, folder_out)


def pairs_of(model: nn.Module, *, all_pairs: bool = False) -> list[tuple[int, int]]:
    """The pairs of experts between which deltas lead, the smaller number first: the neighbours that the model's first
    router knows, or all.

    One file leads both ways, so that neighbours need half the files of the original, which has one for each direction.
    Raises ``ConfigError`` for a router without neighbours, and for a model without a router.
    """
    routers = routers_of(model)
    if not routers:
        raise ConfigError("The model has no experts, so no deltas lead between them; choose a stage with experts.")
    router: Any = routers[0][2]
    if all_pairs:
        return [(i, j) for i, j in combinations(range(router.num_experts), 2)]
    edges = router.edges() if isinstance(router, RouterBase) else None
    if edges is None:
        raise ConfigError(
            f"The router of this model ({type(router).__name__}) knows no neighbours between which deltas would be "
            "small; add --all-pairs to write one for every pair of experts."
        )
    return [(int(i), int(j)) for i, j in edges.tolist()]


def write_deltas(
    experts: Sequence[ExpertCodes], pairs: Iterable[tuple[int, int]], folder: str | os.PathLike[str]
) -> DeltasReport:
    """Write one file for every pair to a new folder; ``ConfigError`` where there is no pair, ``StoreError`` where
    nothing can be written or the folder is not empty, and then nothing stays."""
    wanted = list(pairs)
    if not wanted:
        raise ConfigError("There is no pair of experts to write a delta for; choose a model with two experts or more.")
    with new_folder(folder) as partial:
        reports = tuple(write_delta(partial, i, j, experts[i], experts[j]) for i, j in wanted)
    return DeltasReport(folder=Path(folder), pairs=reports)
