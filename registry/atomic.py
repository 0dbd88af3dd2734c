"""Files that are there whole or not at all, and write errors told in one sentence."""

from __future__ import annotations

import errno
import json
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from .errors import PhasegateError, StoreError

_FULL = {errno.ENOSPC, errno.EDQUOT}
_CLOSED = {errno.EROFS, errno.EACCES, errno.EPERM}
# torch reports a failed write by a position, not by a cause; then the room that is left tells.
_NO_ROOM = 1 << 20


@contextmanager
def reporting(what: str, folder: Path) -> Iterator[None]:
    """Turns a failed write below ``folder`` into a StoreError that says ``what`` could not be written, and why.

    Errors of libraries that hide the cause (safetensors, torch) are recognised when the disk is full;
    any other exception passes through unchanged.
    """
    try:
        yield
    except PhasegateError:
        raise
    except Exception as error:
        cause = _cause(error, folder)
        if cause is None:
            raise
        raise StoreError(f"cannot write {what} in {folder}: {cause}") from error


def write_bytes(path: Path, data: bytes) -> None:
    """Replaces ``path`` by a synced file with this content; on failure the former content stays."""
    with reporting(path.name, path.parent):
        temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
        try:
            with temporary.open("xb") as stream:
                stream.write(data)
                stream.flush()
                os.fsync(stream.fileno())
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        sync_folder(path.parent)


def write_text(path: Path, text: str) -> None:
    """Replaces ``path`` by this text in UTF-8, whole or not at all."""
    write_bytes(path, text.encode("utf-8"))


def write_json(path: Path, value: Any) -> None:
    """Replaces ``path`` by this value as indented JSON, whole or not at all.

    Non-finite floats are written as ``NaN`` and ``Infinity``, which Python's json reads back.
    """
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def read_json(path: Path, what: str) -> dict[str, Any]:
    """The mapping in a JSON file; a file that is missing, unreadable or no mapping is a StoreError naming it."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise StoreError(f"cannot read {what} at {path}: {error.strerror or error}") from error
    except ValueError as error:
        raise StoreError(f"{path} is not the JSON of {what} ({error}); move its folder away and run again") from error
    if not isinstance(value, dict):
        raise StoreError(f"{path} holds a {type(value).__name__} where {what} has a mapping; move its folder away")
    return value


def sync_file(path: Path) -> None:
    """Returns once the content of ``path`` is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_folder(path: Path) -> None:
    """Returns once the names in ``path`` are on the disk."""
    if os.name == "nt":  # Windows cannot open a folder for syncing; it orders renames itself
        return
    sync_file(path)


def shortage(error: Exception, folder: Path) -> str | None:
    """Says in words that a write below ``folder`` failed for want of room or of permission; None for another error."""
    if (isinstance(error, OSError) and error.errno in _FULL) or "No space left on device" in str(error):
        return _full()
    if isinstance(error, OSError) and error.errno in _CLOSED:
        return f"it is read-only for this user ({error.strerror}); choose another folder or change its permissions"
    if isinstance(error, RuntimeError) and folder.exists() and shutil.disk_usage(folder).free < _NO_ROOM:
        return _full()
    return None


def _cause(error: Exception, folder: Path) -> str | None:
    if (cause := shortage(error, folder)) is not None:
        return cause
    if isinstance(error, OSError):
        name = f" ({error.filename})" if error.filename else ""
        return f"{error.strerror or error}{name}; mend this and run the same command again"
    return None


def _full() -> str:
    return "the disk is full; free some space and run the same command again, everything committed before is kept"
