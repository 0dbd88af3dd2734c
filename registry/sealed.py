"""Records that vouch for files: size and SHA-256 of each, and a digest of the record itself."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from .atomic import sync_file, sync_folder, write_json
from .errors import StoreError

_KEYS = {"facts", "files", "seal"}


def seal(record: Path, facts: Mapping[str, Any], files: Iterable[Path] = ()) -> None:
    """Write ``facts`` to a JSON file that vouches for itself and for ``files``, which lie below its folder.

    Everything is synced, the record comes last: where it is, all it speaks of was whole.
    """
    found = {}
    for path in sorted(files):
        sync_file(path)
        found[path.relative_to(record.parent).as_posix()] = fingerprint_of(path)
    for folder in sorted({path.parent for path in map(record.parent.joinpath, found)}):
        sync_folder(folder)
    # Read back, so that the digest is of what the file will say.
    value = json.loads(json.dumps({"facts": dict(facts), "files": found}))
    write_json(record, {**value, "seal": _digest(value)})


def unseal(record: Path, what: str, remedy: str) -> dict[str, Any]:
    """Return the facts of a sealed record, after reading every file that it vouches for.

    Raises ``StoreError`` with the first file that is missing, cut short or changed: whose it is (``what``) and what to
    do (``remedy``).
    """
    try:
        value = json.loads(record.read_text(encoding="utf-8"))
    except OSError as error:
        raise StoreError(f"cannot read {record}: {error.strerror or error}") from error
    except ValueError:
        value = None
    if not isinstance(value, dict) or set(value) != _KEYS or value.pop("seal") != _digest(value):
        raise StoreError(f"{what} is damaged: {record} has other content than was written; {remedy}")
    for name, facts in value["files"].items():
        if (found := damage(record.parent / name, facts)) is not None:
            raise StoreError(f"{what} is damaged: {record.parent / name} {found}; {remedy}")
    told: dict[str, Any] = value["facts"]
    return told


def fingerprint_of(path: Path) -> dict[str, Any]:
    """Return the size and the SHA-256 of a file, for ``damage``."""
    return {"bytes": path.stat().st_size, "sha256": file_sha256(path)}


def damage(path: Path, facts: Mapping[str, Any]) -> str | None:
    """Say what is wrong with a file of which ``fingerprint_of`` told these facts; None if it is as it was."""
    if not path.is_file():
        return "is missing"
    try:
        size = path.stat().st_size
        if size != facts["bytes"]:
            return f"has {size} bytes instead of {facts['bytes']}"
        return None if file_sha256(path) == facts["sha256"] else "has other content than was written"
    except OSError as error:
        raise StoreError(f"cannot read {path}: {error.strerror or error}") from error


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file, in hex."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _digest(value: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode("ascii")).hexdigest()
