"""Any data set of the ``datasets`` library: on the hub, in its cache, or in a local folder."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ...core.config.paths import is_there
from ...core.data.hashing import digest
from ...core.data.source import SourceContext
from ...registry.errors import DataError
from .options import RecordOptions, check_options
from .readers import content_hash
from .record_source import RecordSource


@dataclass(frozen=True, slots=True, kw_only=True)
class HubConfig(RecordOptions):
    """A data set by ``path`` (hub id, or a folder relative to data.root), with its ``name`` and ``split``.

    ``streaming`` reads only as much as ``limit`` asks for, from the beginning. Pin ``revision`` (a commit) for results
    that last: a branch may move. Data sets with loading scripts are refused by ``datasets`` itself.
    """

    path: str
    name: str | None = None
    split: str = "train"
    revision: str | None = None
    streaming: bool = False


_OF_THE_HUB = re.compile(r"[\w.-]+/[\w.-]+")


class Hub(RecordSource):
    """Rows from a data set that ``datasets.load_dataset`` can open; code from the hub is never run."""

    def __init__(self, config: HubConfig, context: SourceContext) -> None:
        check_options(config, context.name)
        if config.streaming and config.limit is None:
            text = f"The source {context.name!r} streams, so it needs a limit: how many records to read."
            raise DataError(text).within("options", "streaming")
        self.config: HubConfig = config
        self.context = context

    def fingerprint(self) -> str:
        """From the options, the pinned revision, and, for a local folder, its content."""
        folder = self._folder()
        files = sorted(path for path in folder.rglob("*") if path.is_file()) if folder else []
        return digest(
            "hub", 1, asdict(self.config), self.context.held_out, content_hash(files, folder) if folder else None
        )

    def _origin(self) -> Mapping[str, Any]:
        return {"path": self.config.path}

    def _folder(self) -> Path | None:
        folder = self.context.root / self.config.path
        return folder if is_there(folder) and folder.is_dir() else None

    def _records(self) -> Iterator[Mapping[str, Any]]:
        from datasets import load_dataset

        config = self.config
        folder = self._folder()
        if folder is None:
            _refuse_here(config.path, self.context)
        try:
            rows = load_dataset(
                str(folder) if folder else config.path,
                config.name,
                split=config.split,
                revision=config.revision,
                streaming=config.streaming,
            )
            yield from rows.take(config.limit) if config.streaming else rows
        except (OSError, ValueError, RuntimeError) as error:
            # offline, unknown or gated ids, wrong names and splits: datasets says which in its first line
            reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            raise DataError(
                f"The source {self.context.name!r} cannot load the data set {config.path!r}: {reason.rstrip('.')}; "
                f"check path, name, split and revision, be online, or put the data under {self.context.root}."
            ).within("options", "path") from error


def _refuse_here(path: str, context: SourceContext) -> None:
    """Raise ``DataError`` for what ``datasets`` would read from the working directory: a folder of that name, or files
    of the format that a name without an owner stands for."""
    if _OF_THE_HUB.fullmatch(path) is None or Path(path).exists():
        raise DataError(
            f"The source {context.name!r} finds no folder {path!r} under {context.root}, and nothing is read from the "
            "working directory; set data.root to the folder that holds it, or name a data set of the hub (owner/name)."
        )
