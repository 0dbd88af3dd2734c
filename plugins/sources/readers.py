"""Readers of local files: txt, jsonl, json, csv and parquet, each also gzipped, as records."""

from __future__ import annotations

import csv
import gzip
import hashlib
import io
import json
import re
import sys
import sysconfig
import zlib
from collections.abc import Callable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any, Literal

from ...registry.errors import DataError
from ...registry.suggest import did_you_mean

Documents = Literal["file", "lines", "paragraphs"]

_TEXT_SUFFIXES = (".txt", ".md", ".py", ".rst", ".tex")
_SKIPPED_FOLDERS = {"site-packages", "dist-packages", "test", "tests", "idle_test", "__pycache__"}


def find_files(patterns: tuple[str, ...], root: Path, source: str) -> list[Path]:
    """All files that the patterns match, sorted; ``DataError`` for a pattern that matches none."""
    found: set[Path] = set()
    for number, pattern in enumerate(patterns):
        path = Path(pattern)
        base = Path(path.anchor) if path.is_absolute() else root
        try:
            if any(mark in pattern for mark in "*?["):
                below = str(path.relative_to(base) if path.is_absolute() else path)
                matched = [one for one in base.glob(below) if one.is_file()]
            else:
                matched = [base / path] if (base / path).is_file() else []
        except (NotImplementedError, OSError, ValueError):  # no pattern and no path can be so
            matched = []
        if not matched:
            raise DataError(
                f"The source {source!r} finds no file {pattern!r} under {base}; check the path, or set data.root."
                f"{_instead(base / path, pattern)}"
            ).within("options", "paths", str(number))
        found.update(matched)
    return sorted(found)


def _instead(path: Path, pattern: str) -> str:
    """Return what may have been meant by a path where no file is: the files of a folder, or a neighbour."""
    try:
        if path.is_dir():
            return f" It is a folder: write '{pattern}/*' for the files in it."
        return did_you_mean(path.name, [one.name for one in islice(path.parent.iterdir(), 1000) if one.is_file()])
    except (OSError, ValueError):
        return ""


def standard_library() -> list[Path]:
    """The Python files of the running interpreter's standard library, without its tests and installed packages."""
    root = Path(sysconfig.get_paths()["stdlib"])
    return sorted(
        path for path in root.rglob("*.py") if not _SKIPPED_FOLDERS.intersection(path.relative_to(root).parts[:-1])
    )


def content_hash(paths: list[Path], root: Path) -> str:
    """A hash over the names (relative to ``root``) and bytes of files, in order."""
    state = hashlib.blake2b(digest_size=12)
    for path in paths:
        name = str(path.relative_to(root)) if path.is_relative_to(root) else path.name
        state.update(f"{name}\0".encode())
        state.update(_bytes(path))
    return state.hexdigest()


def read_records(path: Path, source: str, documents: Documents, characters: int) -> Iterator[Mapping[str, Any]]:
    """The records of one file; a text file gives records with the one field ``text``.

    ``DataError`` names the source and the file when it is empty, unreadable, or of an unknown kind.
    """
    kind = path.with_suffix("").suffix if path.suffix == ".gz" else path.suffix
    data = _bytes(path)
    if path.suffix == ".gz":
        try:
            data = gzip.decompress(data)
        except (OSError, EOFError, zlib.error) as error:
            raise DataError(
                f"The source {source!r} cannot unpack {path}: {error}; the file is damaged or no gzip."
            ) from error
    if not data.strip():
        raise DataError(f"The source {source!r} reads {path}, but the file is empty.")
    if kind == ".parquet":
        yield from _parquet(data, path, source)
        return
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(
            f"The source {source!r} cannot read {path} as UTF-8 ({error.reason} at {error.start})."
        ) from error
    if kind in _TEXT_SUFFIXES:
        yield from ({"text": part} for part in cut_text(text, documents, characters))
    elif kind in _READERS:
        yield from _READERS[kind](text, path, source)
    else:
        known = ", ".join(sorted({*_TEXT_SUFFIXES, *_READERS, ".parquet"}))
        raise DataError(f"The source {source!r} cannot tell what {path} is; known are {known}, each also with .gz.")


def cut_text(text: str, documents: Documents, characters: int) -> Iterator[str]:
    """Cut a text into documents: the whole of it, its lines, or runs of paragraphs of at least ``characters``."""
    if documents == "file":
        yield text
    elif documents == "lines":
        yield from (line for line in text.splitlines() if line.strip())
    else:
        run: list[str] = []
        size = 0
        for paragraph in re.split(r"\n\s*\n", text):
            if paragraph.strip():
                run.append(paragraph.strip("\n"))
                size += len(paragraph)
            if size >= characters:
                yield "\n\n".join(run)
                run, size = [], 0
        if run:
            yield "\n\n".join(run)


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"The file {path} cannot be read: {error.strerror}.") from error


def _jsonl(text: str, path: Path, source: str) -> Iterator[Mapping[str, Any]]:
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            yield _record(line, f"{path}:{number}", source)


def _json(text: str, path: Path, source: str) -> Iterator[Mapping[str, Any]]:
    try:
        value = json.loads(text)
    except ValueError as error:
        raise DataError(f"The source {source!r} cannot read {path}: not JSON ({error}).") from error
    for item in value if isinstance(value, list) else [value]:
        if not isinstance(item, dict):
            raise DataError(f"The source {source!r} reads {path}, but its items are no JSON objects.")
        yield item


def _record(line: str, place: str, source: str) -> Mapping[str, Any]:
    try:
        value = json.loads(line)
    except ValueError as error:
        raise DataError(f"The source {source!r} cannot read {place}: not JSON ({error}).") from error
    if not isinstance(value, dict):
        raise DataError(f"The source {source!r} cannot use {place}: not a JSON object.")
    return value


def _csv(text: str, path: Path, source: str) -> Iterator[Mapping[str, Any]]:
    csv.field_size_limit(sys.maxsize)
    try:
        for row in csv.DictReader(io.StringIO(text, newline=""), strict=True):
            if None in row or None in row.values():
                raise DataError(f"The source {source!r} reads {path}, but a row has not as many cells as the header.")
            yield row
    except csv.Error as error:
        raise DataError(f"The source {source!r} cannot read {path} as CSV: {error}.") from error


def _parquet(data: bytes, path: Path, source: str) -> Iterator[Mapping[str, Any]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(io.BytesIO(data))
        for batch in file.iter_batches():
            yield from batch.to_pylist()
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"The source {source!r} cannot read {path} as parquet: {error}.") from error


_READERS: Mapping[str, Callable[[str, Path, str], Iterator[Mapping[str, Any]]]] = {
    ".csv": _csv,
    ".json": _json,
    ".jsonl": _jsonl,
}
