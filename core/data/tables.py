"""Small helpers over ``datasets``: tables that live in memory and carry our own fingerprint."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pyarrow as pa
    from datasets import Dataset


def dataset_of(columns: Mapping[str, Sequence[Any] | pa.Array], fingerprint: str) -> Dataset:
    """A dataset in memory whose fingerprint is the given one, so that nothing is hashed or cached on disk."""
    import pyarrow as pa
    from datasets import Dataset

    return Dataset(pa.table(dict(columns)), fingerprint=fingerprint)
