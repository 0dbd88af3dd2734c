"""The corpus: all sources of an experiment, joined view by view, with held-out text that training never shows."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

import numpy as np

from ...registry.errors import DataError, blaming
from ..config.schema import DataSection
from .contamination import find_contamination, free_of
from .hashing import digest
from .source import PAPER_MIXTURE, VIEW_COLUMNS, Source, SourceContext, Split

if TYPE_CHECKING:
    from datasets import Dataset

#: Views that weights are trained on; what a source asks that only measures is kept out of them.
_TRAINED = ("chat", "preference", "refusal", "text")
_SAID = ("chosen", "completion", "prompt", "question", "rejected", "text")

T = TypeVar("T")
Rows: TypeAlias = np.ndarray[Any, np.dtype[np.int64]]


class Corpus:
    """The data of an experiment. Views are loaded on first use and then kept in memory.

    ``domains`` has a stable order: the paper's seven first, others by name. ``root`` is where relative paths start.
    Held-out text that shares a run of ``contamination_ngram`` words with training text is dropped, and so is a
    training row that shares one with what a source asks that only measures; ``report`` counts both.
    """

    def __init__(self, sources: Mapping[str, Source], section: DataSection, root: Path) -> None:
        if not sources:
            raise DataError("The experiment has no data source; name one under data.sources.")
        self._sources = dict(sources)
        self._section = section
        self.root = root
        named: set[str] = set()
        for name, source in self._sources.items():
            with blaming("data", "sources", name):
                named.update(source.domains())
        paper = [domain for domain in PAPER_MIXTURE if domain in named]
        self.domains: tuple[str, ...] = (*paper, *sorted(named - set(paper)))
        self._views: dict[tuple[str, Split], tuple[Dataset, set[str]]] = {}
        self._made: dict[Any, tuple[Any, set[str]]] = {}
        self._notes: list[set[str]] = []
        self._report: dict[str, Any] = {}

    @classmethod
    def load(cls, section: DataSection, registry: Any, base: Path) -> Corpus:
        """Build every source; relative paths start from ``data.root``, which itself starts from ``base``."""
        root = (base / section.root).resolve() if section.root else base.resolve()
        if section.root and not root.is_dir():
            text = f"The data root {root} is no folder; set data.root to where the data lies."
            raise DataError(text).within("data", "root")
        if not 0 <= section.held_out < 1:
            raise DataError(f"data.held_out is {section.held_out}, but a share in [0, 1) is needed.")
        sources = {}
        for name, ref in section.sources.items():
            context = SourceContext(root=root, name=name, held_out=section.held_out)
            with blaming("data", "sources", name):
                sources[name] = registry.build("source", ref.use, ref.options, context=context)
        return cls(sources, section, root)

    def fingerprint(self) -> str:
        """Changes whenever any row of any view may change."""
        section, prints = self._section, {}
        for name, source in self._sources.items():
            with blaming("data", "sources", name):
                prints[name] = source.fingerprint()
        return digest(
            prints,
            section.held_out,
            section.contamination_ngram,
            section.rows_per_domain,
        )

    def views(self) -> tuple[str, ...]:
        """All views that any source offers, sorted."""
        return tuple(sorted({view for source in self._sources.values() for view in source.views()}))

    def view(self, view: str, split: Split) -> Dataset:
        """The rows of a view over all sources that have it; ``DataError`` if none has it or nothing is left."""
        if (view, split) not in self._views:
            with self.noting() as read:
                rows = self._load(view, split)
            self._views[view, split] = (rows, {f"{view}/{split}", *read})
        rows, read = self._views[view, split]
        self._note(read)
        return rows

    def rows(self, view: str, split: Split, kinds: Sequence[str] = ()) -> Dataset:
        """The rows of a view that are of one of ``kinds`` (all kinds if none is named); ``DataError`` for a kind that
        no row has."""
        rows = self.view(view, split)
        if not kinds:
            return rows
        column = np.asarray(rows["kind"][:], dtype=object)
        for kind in kinds:
            if kind not in column:
                known = ", ".join(sorted(set(column.tolist())))
                raise DataError(f"The view {view!r} has no {split} rows of the kind {kind!r}; it has {known}.")
        return rows.select(np.flatnonzero(np.isin(column, list(kinds))).tolist())

    @contextmanager
    def noting(self) -> Iterator[set[str]]:
        """Note what the body reads, as ``view/split``, whether it was read before or not: what a stage says of its data
        must not depend on what else the process did."""
        read: set[str] = set()
        self._notes.append(read)
        try:
            yield read
        finally:
            self._notes.pop()

    def _note(self, read: set[str]) -> None:
        for note in self._notes:
            note |= read

    def report(self, read: Iterable[str] | None = None) -> Mapping[str, Any]:
        """What was dropped of what is named as ``view/split`` (all that was read so far if nothing is), JSON-able."""
        if read is not None:
            for name in (names := sorted(read)):
                view, _, split = name.rpartition("/")
                self.view(view, split)  # type: ignore[arg-type]
            return {**{name: self._report[name] for name in names}, "sources": self._sources_report()}
        return {**self._report, "sources": self._sources_report()}

    def _sources_report(self) -> dict[str, Any]:
        return {name: dict(source.report()) for name, source in self._sources.items() if hasattr(source, "report")}

    def tokenizer_texts(self, documents: int) -> Iterator[str]:
        """At most ``documents`` training texts to learn a tokenizer from: equally many of every domain as far as
        they go, spread evenly over each, the domains in turn."""
        rows = self.view("text", "train")
        groups = members_of(rows)
        counts = dict.fromkeys(groups, 0)
        left = documents
        for open_groups, name in enumerate(sorted(groups, key=lambda name: len(groups[name]))):
            counts[name] = min(len(groups[name]), left // (len(groups) - open_groups))
            left -= counts[name]
        places = [
            ((place + 0.5) / max(1, counts[name]), name, int(row))
            for name, members in groups.items()
            for place, row in enumerate(spread(members, counts[name]))
        ]
        yield from texts(rows.select([row for _, _, row in sorted(places)]))

    def once(self, key: Any, make: Callable[[], T]) -> T:
        """Make something that depends only on this corpus and ``key``, once."""
        if key not in self._made:
            with self.noting() as read:
                value = make()
            self._made[key] = (value, read)
        made: T
        made, read = self._made[key]
        self._note(read)
        return made

    def _load(self, view: str, split: Split) -> Dataset:
        from datasets import concatenate_datasets

        parts = [self._part(name, view, split) for name, source in self._sources.items() if view in source.views()]
        if not parts:
            near = difflib.get_close_matches(view, self.views(), n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"on offer are {', '.join(self.views())}."
            raise DataError(f"No data source of the experiment offers the view {view!r}; {hint}")
        parts = [part for part in parts if len(part)]
        if not parts:
            raise DataError(
                f"The view {view!r} has no {split} rows; "
                + ("raise data.held_out." if split == "heldout" else "check the sources' options.")
            )
        common = [column for column in parts[0].column_names if all(column in part.column_names for part in parts)]
        parts = [part.select_columns(common) for part in parts]
        rows = concatenate_datasets(parts) if len(parts) > 1 else parts[0]
        report: dict[str, Any] = {"rows": len(rows)}
        if view == "text" and split == "heldout":
            rows = self._clean(rows, report)
        if view in _TRAINED and split == "train":
            rows = self._without_benchmarks(rows, report)
        rows = self._limit(rows, report)
        self._report[f"{view}/{split}"] = report
        return rows

    def _part(self, name: str, view: str, split: Split) -> Dataset:
        with blaming("data", "sources", name):
            rows = self._sources[name].load(view, split)
        if not len(rows):
            return rows
        missing = [column for column in VIEW_COLUMNS.get(view, ("domain",)) if column not in rows.column_names]
        if missing:
            raise DataError(f"The source {name!r} gives the view {view!r} without the column {missing[0]!r}.")
        unknown = set(rows.unique("domain")) - set(self.domains)
        if unknown:
            raise DataError(
                f"The source {name!r} gives rows of the domain {sorted(unknown)[0]!r}, which it never named."
            )
        return rows

    def _clean(self, rows: Dataset, report: dict[str, Any]) -> Dataset:
        n = self._section.contamination_ngram
        found = find_contamination(texts(self.view("text", "train")), list(texts(rows)), n)
        report |= {"contaminated": found.dropped, "contaminated_whole": found.dropped_whole, "ngram": n}
        if not found.kept:
            raise DataError(
                f"Every held-out document shares {n} words in a row with training text; "
                "the sources repeat themselves, so take held-out text from another source."
            )
        return rows.select(found.kept) if found.dropped else rows

    def _without_benchmarks(self, rows: Dataset, report: dict[str, Any]) -> Dataset:
        asked = self.once("benchmarks", lambda: list(self._benchmarks()))
        if not asked:
            return rows
        kept = free_of(asked, said(rows), self._section.contamination_ngram)
        report["benchmark"] = len(rows) - len(kept)
        if not kept:
            raise DataError(
                "Every training row of a view holds what a source asks that only measures (held_out: 1); "
                "read the same records for one of the two."
            )
        return rows.select(kept) if len(kept) < len(rows) else rows

    def _benchmarks(self) -> Iterator[str]:
        """What the sources ask that only measure."""
        for source in self._sources.values():
            if getattr(source, "evaluation_only", False):
                for view in source.views():
                    rows = source.load(view, "heldout")
                    columns = [name for name in ("prompt", "question") if name in rows.column_names]
                    for row in said(rows.select_columns(columns)) if columns else ():
                        yield from row

    def _limit(self, rows: Dataset, report: dict[str, Any]) -> Dataset:
        most = self._section.rows_per_domain
        if most is None:
            return rows
        keep: list[int] = []
        for members in members_of(rows).values():
            keep += spread(members, most).tolist()
        report["kept"] = len(keep)
        return rows.select(sorted(keep)) if len(keep) < len(rows) else rows


def texts(rows: Dataset) -> Iterator[str]:
    """The text column, chunk by chunk, so that it never stands in memory twice."""
    for batch in rows.select_columns(["text"]).iter(batch_size=1000):
        yield from batch["text"]


def said(rows: Dataset) -> Iterator[list[str]]:
    """Everything that a row says, message by message and text by text, chunk by chunk."""
    spoken = [name for name in _SAID if name in rows.column_names]
    for batch in rows.select_columns(spoken).iter(batch_size=1000):
        for values in zip(*(batch[name] for name in spoken), strict=True):
            yield [
                part
                for value in values
                for part in ([value] if isinstance(value, str) else [message["content"] for message in value])
            ]


def spread(members: Rows, most: int) -> Rows:
    """At most ``most`` members, evenly spaced, because sources are often sorted."""
    if len(members) <= most:
        return members
    return members[((np.arange(most) + 0.5) * len(members) / most).astype(np.int64)]


def members_of(rows: Dataset) -> dict[str, Rows]:
    """Row numbers by domain, in order."""
    names = np.asarray(rows["domain"][:], dtype=object)
    return {name: np.flatnonzero(names == name) for name in sorted(set(names.tolist()))}
