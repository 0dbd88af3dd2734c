"""Any data set of the ``datasets`` library: on the hub, in its cache, or in a local folder."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...core.data.hashing import digest
from ...core.data.source import SourceContext, Split
from ...registry.errors import DataError
from .files import split_dataset
from .readers import content_hash
from .records import RecordOptions, Rows, check_options, read_rows

if TYPE_CHECKING:
    from datasets import Dataset


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


class Hub:
    """Rows from a data set that ``datasets.load_dataset`` can open; code from the hub is never run."""

    def __init__(self, config: HubConfig, context: SourceContext) -> None:
        check_options(config, context.name)
        if config.streaming and config.limit is None:
            raise DataError(f"The source {context.name!r} streams, so it needs a limit: how many records to read.")
        self.config, self.context = config, context
        self._rows: Rows | None = None

    def fingerprint(self) -> str:
        """From the options, the pinned revision, and, for a local folder, its content."""
        folder = self._folder()
        files = sorted(path for path in folder.rglob("*") if path.is_file()) if folder else []
        return digest(
            "hub", 1, asdict(self.config), self.context.held_out, content_hash(files, folder) if folder else None
        )

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
        report = {"path": self.config.path, "records": rows.read, "skipped": dict(rows.skipped)}
        return report | ({"licence": self.config.licence} if self.config.licence else {})

    def _folder(self) -> Path | None:
        folder = self.context.root / self.config.path
        return folder if folder.is_dir() else None

    def _records(self) -> Iterator[Mapping[str, Any]]:
        from datasets import load_dataset

        config = self.config
        folder = self._folder()
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
            ) from error
