"""What a source of records shares, wherever the records come from: one view, read once, split by content."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from ...core.data.hashing import digest
from ...core.data.source import SourceContext, Split
from ...registry.errors import DataError
from .options import RecordOptions
from .records import Rows, read_rows

if TYPE_CHECKING:
    import pyarrow as pa
    from datasets import Dataset


class RecordSource(ABC):
    """Rows of one view from records; a source says where they come from and what identifies them."""

    config: RecordOptions
    context: SourceContext
    _rows: Rows | None = None

    @abstractmethod
    def fingerprint(self) -> str:
        """Changes whenever a row may change."""

    @abstractmethod
    def _records(self) -> Iterator[Mapping[str, Any]]:
        """The raw records, in a stable order."""

    @abstractmethod
    def _origin(self) -> Mapping[str, Any]:
        """Where the records come from, for the report."""

    @property
    def evaluation_only(self) -> bool:
        """Whether all rows are held out, so that what they ask must not stand in any training row."""
        return self.config.share(self.context.held_out) == 1

    def domains(self) -> tuple[str, ...]:
        return (self.config.domain,) if self.config.domain is not None else tuple(sorted(self.rows().domains()))

    def views(self) -> tuple[str, ...]:
        return (self.config.view,)

    def load(self, view: str, split: Split) -> Dataset:
        """The rows of the one view that this source has; a split may be empty."""
        if view != self.config.view:
            raise DataError(f"The source {self.context.name!r} gives the view {self.config.view!r}, not {view!r}.")
        return split_dataset(self.rows(), split, digest(self.fingerprint(), split))

    def rows(self) -> Rows:
        """All rows, read once."""
        if self._rows is None:
            self._rows = read_rows(self._records(), self.config, self.context.name, self.context.held_out)
        return self._rows

    def report(self) -> Mapping[str, Any]:
        """What was read and left out."""
        rows = self.rows()
        report = {**self._origin(), "records": rows.read, "skipped": dict(rows.skipped)}
        return report | ({"licence": self.config.licence} if self.config.licence else {})


def split_dataset(rows: Rows, split: Split, fingerprint: str) -> Dataset:
    """One split as a dataset; an empty split, and a column of empty lists, have the types that others have."""
    import pyarrow as pa

    from ...core.data.tables import dataset_of

    return dataset_of(
        {name: pa.array(values, type=_column_type(name, rows)) for name, values in rows.columns[split].items()},
        fingerprint,
    )


def _column_type(name: str, rows: Rows) -> pa.DataType:
    import pyarrow as pa

    if name in {"prompt", "completion", "chosen", "rejected"}:
        return pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))
    if name in {"choices", "aliases"}:
        return pa.list_(pa.string())
    if name == "depth":
        return pa.float64()
    values = rows.columns["train"][name] or rows.columns["heldout"][name]
    return pa.int64() if isinstance(values[0], int) else pa.string()
