"""Optuna's journal in a file, kept readable when a worker is killed while it writes."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from filelock import FileLock
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

from ...registry.atomic import reporting
from ...registry.errors import StoreError

_BLOCK = 1 << 16  # bytes read at a time when the end of the last whole line is looked for


class MendingJournal(JournalFileBackend):
    """The journal file of a study, one line for each change.

    A worker killed in the middle of a write leaves a line without an end. Optuna would put the next line behind it and
    could read neither that one nor any later one; here it is cut off before the next write: the change it was for
    never took place. The lock is the system's, so that it dies with its owner and nobody waits for a dead one.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(str(path))
        self._path = path
        self._writing = FileLock(path.with_name(f"{path.name}.writing"))

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        lines = "".join(json.dumps(log, separators=(",", ":")) + "\n" for log in logs)
        with (
            reporting("the journal of the study", self._path.parent),
            self._writing,
            self._path.open("r+b") as stream,
        ):
            stream.truncate(_whole(stream))
            stream.seek(0, os.SEEK_END)
            stream.write(lines.encode("utf-8"))
            stream.flush()
            os.fsync(stream.fileno())


def journal_storage(path: Path) -> JournalStorage:
    """The storage in this journal file; StoreError where a line in it cannot be read."""
    check_journal(path)
    return JournalStorage(MendingJournal(path))


def check_journal(path: Path) -> None:
    """StoreError for the first whole line of a journal that is no record; a last line without its end is let pass."""
    if not path.exists():
        return
    with path.open("rb") as stream:
        for number, line in enumerate(stream, start=1):
            if not line.endswith(b"\n"):
                return
            try:
                record = json.loads(line)
            except ValueError:
                record = None
            if not isinstance(record, dict) or "op_code" not in record:
                raise StoreError(
                    f"line {number} of {path} is no record of a study: the journal is damaged. Put it back from a copy "
                    "or start a study of another name (--name); stages that are trained are reused either way."
                )


def _whole(stream: Any) -> int:
    """The number of bytes up to the end of the last whole line."""
    end: int = stream.seek(0, os.SEEK_END)
    while end:
        start = max(0, end - _BLOCK)
        stream.seek(start)
        found: int = stream.read(end - start).rfind(b"\n")
        if found >= 0:
            return start + found + 1
        end = start
    return 0
