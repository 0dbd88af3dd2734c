"""Replay beside an sft, dpo or contrast step: rows of earlier steps, as a loss of their own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from .hashing import stream

if TYPE_CHECKING:
    import numpy.typing as npt
    import torch

    from .packing import Packed


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Pool:
    """Packed rows to replay from, and the share of replay that each domain of the pool has."""

    name: str
    packed: Packed
    shares: npt.NDArray[np.float64]  # shape: (D,)


class ReplayStream:
    """Replay batches without state: step k of a resumed run gets what step k of an unbroken run gets.

    ``rows`` are drawn per optimiser step over all processes and micro-batches together. Within a step the domains
    are drawn systematically (Madow 1949): each gets its share of the rows, rounded up or down by a coin of the step.
    """

    def __init__(self, pools: tuple[Pool, ...], *, rows: int, accumulate: int, key: tuple[Any, ...]) -> None:
        self.rows, self.accumulate = rows, accumulate
        self.length = pools[0].packed.ids.shape[1]
        self._key = key
        self._cells: list[tuple[Pool, int, npt.NDArray[np.int64]]] = []
        weights = []
        for pool in pools:
            for domain, members in enumerate(pool.packed.members(len(pool.shares))):
                if pool.shares[domain] > 0 and len(members):
                    self._cells.append((pool, domain, members))
                    weights.append(pool.shares[domain])
        self._edges = np.cumsum(weights) / np.sum(weights)

    def shares(self) -> Mapping[str, float]:
        """The share of each (pool, domain) in replay, as ``pool/domain number``."""
        widths = np.diff(self._edges, prepend=0.0)
        return {f"{pool.name}/{n}": float(w) for (pool, n, _), w in zip(self._cells, widths, strict=True)}

    def batch(self, step: int, micro: int, rank: int, world: int) -> dict[str, torch.Tensor]:
        """The rows of one micro-batch of one process: input_ids, position_ids, labels (B, L) and domain (B,).

        Micro-batches differ by at most one row, and B may be 0. There is no attention mask: rows hold no padding,
        and with a mask transformers no longer reads the document borders from ``position_ids``.
        """
        import torch

        parts, part = self.accumulate * world, micro * world + rank
        begin, end = part * self.rows // parts, (part + 1) * self.rows // parts
        drawn = self._draw(step)[begin:end]

        def stacked(field: str) -> torch.Tensor:
            rows = [getattr(pool.packed, field)[row] for pool, row in drawn]
            return torch.from_numpy(np.asarray(rows, dtype=np.int64).reshape(len(rows), self.length))

        return {
            "input_ids": stacked("ids"),
            "position_ids": stacked("positions"),
            "labels": stacked("labels"),
            # A dialogue has no domain here: what routing terms hold is the routing of text.
            "domain": torch.tensor(
                [int(pool.packed.domain[row]) if pool.name == "text" else -1 for pool, row in drawn], dtype=torch.int64
            ),
        }

    def _draw(self, step: int) -> list[tuple[Pool, int]]:
        rng = stream(*self._key, "replay", step)
        points = (rng.random() + np.arange(self.rows)) / self.rows
        cells = np.minimum(np.searchsorted(self._edges, points, side="right"), len(self._cells) - 1)
        drawn = []
        for cell in rng.permutation(cells):
            pool, _, members = self._cells[cell]
            drawn.append((pool, int(members[rng.integers(len(members))])))
        return drawn
