"""Rows read in blocks: a data set's own batch access costs a noticeable part of a small model's step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from torch.utils.data import Dataset as TorchDataset

if TYPE_CHECKING:
    from datasets import Dataset


class RowBlocks(TorchDataset[Mapping[str, Any]]):
    """The rows of a data set in its order, as numpy arrays, read ``block`` rows at a time.

    Meant for sequential access; any order gives the same rows.
    """

    def __init__(self, rows: Dataset, columns: Sequence[str], block: int = 512) -> None:
        self._rows = rows.select_columns(list(columns)).with_format("numpy")
        self._block = block
        self._number = -1
        self._columns: Mapping[str, np.ndarray[Any, Any]] = {}

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> Mapping[str, Any]:
        number, offset = divmod(index, self._block)
        if number != self._number:
            start = number * self._block
            self._columns = self._rows[start : min(start + self._block, len(self._rows))]
            self._number = number
        return {name: values[offset] for name, values in self._columns.items()}
