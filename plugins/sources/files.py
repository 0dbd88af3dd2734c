"""Local files as a data source."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...core.data.hashing import digest
from ...core.data.source import SourceContext, Split
from ...registry.errors import DataError
from .readers import Documents, content_hash, find_files, read_records, standard_library
from .records import RecordOptions, Rows, check_options, read_rows

if TYPE_CHECKING:
    from datasets import Dataset


@dataclass(frozen=True, slots=True, kw_only=True)
class FilesConfig(RecordOptions):
    """Files by path or glob, relative to data.root: txt, jsonl, json, csv, parquet, each also gzipped.

    ``documents`` says what a document of a text file is, ``document_characters`` how long runs of paragraphs get.
    ``stdlib: true`` takes the running interpreter's own standard library instead of ``paths`` (one document per
    module; Python Software Foundation licence; domain code unless said otherwise).
    """

    paths: tuple[str, ...] = ()
    documents: Documents = "paragraphs"
    document_characters: int = 2_000
    stdlib: bool = False


class Files:
    """Rows from local files. Content decides the fingerprint and the held-out split, order in the files the rest."""

    def __init__(self, config: FilesConfig, context: SourceContext) -> None:
        from dataclasses import replace

        if config.stdlib:
            named = config.domain is not None or config.domain_field is not None
            config = replace(
                config,
                domain=config.domain if named else "code",
                documents="file",
                licence=config.licence or "PSF-2.0",
            )
        if config.stdlib == bool(config.paths):
            raise DataError(f"The source {context.name!r} needs either paths or stdlib: true.")
        check_options(config, context.name)
        self.config, self.context = config, context
        self._files: list[Path] | None = None
        self._rows: Rows | None = None
        self._hash: str | None = None

    def files(self) -> list[Path]:
        """The files, sorted; looked up once."""
        if self._files is None:
            found = (
                standard_library()
                if self.config.stdlib
                else find_files(self.config.paths, self.context.root, self.context.name)
            )
            self._files = found
        return self._files

    def fingerprint(self) -> str:
        if self._hash is None:
            self._hash = content_hash(self.files(), self.context.root)
        return digest("files", 1, asdict(self.config), self.context.held_out, self._hash)

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
        report = {"files": len(self.files()), "records": rows.read, "skipped": dict(rows.skipped)}
        return report | ({"licence": self.config.licence} if self.config.licence else {})

    def _records(self) -> Iterator[Mapping[str, Any]]:
        config = self.config
        for path in self.files():
            if config.stdlib and not path.stat().st_size:
                continue  # many packages of the standard library have an empty __init__
            yield from read_records(path, self.context.name, config.documents, config.document_characters)


def split_dataset(rows: Rows, split: Split, fingerprint: str) -> Dataset:
    """One split as a dataset; an empty split has the other's column types."""
    from ...core.data.tables import dataset_of

    columns = rows.columns[split]
    if columns["domain"]:
        return dataset_of(columns, fingerprint)
    other = rows.columns["heldout" if split == "train" else "train"]
    return dataset_of({name: values[:1] for name, values in other.items()}, fingerprint).select([])
