"""The order of rows: a pure function of (corpus fingerprint, seed, step), whatever the number of processes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ...registry.errors import DataError
from .hashing import stream
from .mixture import Slot

if TYPE_CHECKING:
    import numpy.typing as npt


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Order:
    """Row numbers in training order (shape: (steps*rows,)), how often each domain's rows were begun anew, and the
    drawn share of every domain, with ``replay`` for the replayed share."""

    rows: npt.NDArray[np.int64]
    epochs: Mapping[str, float]
    shares: Mapping[str, float]


def order_rows(
    dealt: Sequence[Sequence[Slot]], members: Mapping[str, npt.NDArray[np.int64]], key: Sequence[Any], first: int = 0
) -> Order:
    """Put concrete rows into slots, and shuffle each step's rows among its micro-batches.

    A domain's rows are drawn in a random order without repetition; when they run out, in another order, and so on.
    Replay draws from an order of its own. Steps before ``first`` are dealt but not returned, so that an extension
    goes on where the first run ended. ``DataError`` if a domain that is asked for has no row.
    """
    queues: dict[Slot, _Queue] = {}
    picked = []
    counts: dict[str, int] = {}
    replayed = 0
    for number, slots in enumerate(dealt):
        step = np.empty(len(slots), dtype=np.int64)
        for place, slot in enumerate(slots):
            if slot not in queues:
                rows = members.get(slot.domain, np.empty(0, dtype=np.int64))
                if not len(rows):
                    raise DataError(
                        f"The domain {slot.domain!r} has a share of the batches but not one full row of data; "
                        "give it more data, a shorter sequence_length, or the share 0."
                    )
                queues[slot] = _Queue(rows, (*key, slot.domain, slot.replay))
            step[place] = queues[slot].draw()
            if number >= first:
                counts[slot.domain] = counts.get(slot.domain, 0) + 1
                replayed += slot.replay
        if number >= first:
            picked.append(step[stream(*key, "step", number).permutation(len(step))])
    total = max(1, sum(counts.values()))
    shares = {name: count / total for name, count in sorted(counts.items())}
    return Order(
        rows=np.concatenate([np.empty(0, dtype=np.int64), *picked]),
        epochs={slot.domain: queue.epochs for slot, queue in queues.items() if not slot.replay},
        shares={**shares, "replay": replayed / total},
    )


class _Queue:
    """One domain's rows, epoch after epoch, each in its own random order."""

    def __init__(self, rows: npt.NDArray[np.int64], key: tuple[Any, ...]) -> None:
        self._rows, self._key = rows, key
        self._epoch, self._place = -1, len(rows)
        self._order = rows.tolist()

    def draw(self) -> int:
        if self._place == len(self._rows):
            self._epoch, self._place = self._epoch + 1, 0
            self._order = stream(*self._key, "epoch", self._epoch).permutation(self._rows).tolist()
        self._place += 1
        return int(self._order[self._place - 1])

    @property
    def epochs(self) -> float:
        return self._epoch + self._place / len(self._rows)
