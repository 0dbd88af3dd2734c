"""Local files as a data source."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ...core.data.hashing import digest
from ...core.data.source import SourceContext
from ...registry.errors import DataError
from .options import RecordOptions, check_options
from .readers import Documents, content_hash, find_files, read_records, standard_library
from .record_source import RecordSource


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


class Files(RecordSource):
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
            text = f"The source {context.name!r} needs either paths or stdlib: true."
            raise DataError(text).within(*(("options", "paths") if config.paths else ()))
        check_options(config, context.name)
        self.config: FilesConfig = config
        self.context = context
        self._files: list[Path] | None = None
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

    def _origin(self) -> Mapping[str, Any]:
        return {"files": len(self.files())}

    def _records(self) -> Iterator[Mapping[str, Any]]:
        config = self.config
        for path in self.files():
            if config.stdlib and not path.stat().st_size:
                continue  # many packages of the standard library have an empty __init__
            yield from read_records(path, self.context.name, config.documents, config.document_characters)
