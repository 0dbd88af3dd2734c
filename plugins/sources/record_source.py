"""What a source of records shares, wherever the records come from: one view, read once, split by content."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from ...core.data.hashing import digest
from ...core.data.source import SourceContext, Split
from ...registry.errors import DataError
from .records import RecordOptions, Rows, read_rows

if TYPE_CHECKING:
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
    """One split as a dataset; an empty split has the other's column types."""
    from ...core.data.tables import dataset_of

    columns = rows.columns[split]
    if columns["domain"]:
        return dataset_of(columns, fingerprint)
    other = rows.columns["heldout" if split == "train" else "train"]
    return dataset_of({name: values[:1] for name, values in other.items()}, fingerprint).select([])
