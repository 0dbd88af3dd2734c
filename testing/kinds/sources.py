"""What a source promises: rows that are what they say, the same every time, and held-out ones that stay out."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from ...core.data.source import VIEW_COLUMNS, SourceContext
from ...registry.discovery import find
from ...registry.errors import ConfigError, DataError
from ...registry.suggest import listing
from ..check import NotApplicable, Subject

_HELD_OUT = 0.2
_FINGERPRINT = """
import json, sys
from pathlib import Path
from phasegate.core.data.source import SourceContext
from phasegate.registry.plugins import Plugins
dist, ref, options, root, held_out = sys.argv[1:]
registry = Plugins.load(() if dist == "phasegate" else (dist,)).components()
context = SourceContext(root=Path(root), name="data", held_out=float(held_out))
print(registry.build("source", ref, json.loads(options), context=context).fingerprint())
"""


@contextmanager
def _root(subject: Subject) -> Iterator[Path]:
    """A data root with the example's files."""
    with TemporaryDirectory() as folder:
        root = Path(folder).resolve()
        for name, text in subject.example.files.items():
            path = root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        yield root


def source_of(subject: Subject, root: Path, options: Mapping[str, Any] | None = None) -> Any:
    """The source, told what a run tells it."""
    chosen = subject.options if options is None else options
    context = SourceContext(root=root, name="data", held_out=_HELD_OUT)
    return subject.registry.build("source", subject.entry.ref, chosen, context=context)


def _rows(source: Any, view: str, split: str) -> list[str]:
    return [json.dumps(row, sort_keys=True, default=str) for row in source.load(view, split).to_list()]


def views(subject: Subject) -> None:
    """Its views are declared by its spec, have the columns of their kind, and name domains that the source names."""
    with _root(subject) as root:
        source = source_of(subject, root)
        declared: tuple[str, ...] = getattr(subject.entry.component, "views", ())
        given, domains = tuple(source.views()), tuple(source.domains())
        assert given, "It offers no view."
        odd = sorted(set(given) - set(declared))
        assert not odd, f"It offers {listing(odd)}, and its spec declares {listing(declared)}."
        assert domains and len(set(domains)) == len(domains), f"Its domains are {domains}."
        for view in given:
            found = {split: source.load(view, split) for split in ("train", "heldout")}
            assert any(len(rows) for rows in found.values()), f"The view '{view}' has no row in any split."
            for split, rows in found.items():
                if not len(rows):
                    continue
                absent = [name for name in VIEW_COLUMNS.get(view, ("domain",)) if name not in rows.column_names]
                assert not absent, f"{split} rows of '{view}' lack the column {listing(absent)}."
                unknown = sorted(set(rows.unique("domain")) - set(domains))
                assert not unknown, f"Rows of '{view}' are of the domain {unknown[0]!r}, which it never names."


def iterates(subject: Subject) -> None:
    """Loaded twice, by one source or by two, a view has the same rows in the same order."""
    with _root(subject) as root:
        source, other = source_of(subject, root), source_of(subject, root)
        for view in source.views():
            for split in ("train", "heldout"):
                first = _rows(source, view, split)
                assert _rows(source, view, split) == first, f"Again, the {split} rows of '{view}' were others."
                assert _rows(other, view, split) == first, f"From another source {split} rows of '{view}' were others."


def held_out(subject: Subject) -> None:
    """Training and held-out rows are disjoint shards of every view: no row is in both."""
    with _root(subject) as root:
        source = source_of(subject, root)
        for view in source.views():
            train, heldout = (set(_rows(source, view, split)) for split in ("train", "heldout"))
            both = train & heldout
            assert not both, f"{len(both)} rows of '{view}' are in both, such as {sorted(both)[0][:120]}."


def fingerprint(subject: Subject) -> None:
    """Its fingerprint is the same in another process, where strings hash otherwise and nothing ran before."""
    if not any(found.dist == subject.entry.dist for found in find()):
        raise NotApplicable("it belongs to no installed distribution")
    with _root(subject) as root:
        source = source_of(subject, root)
        own = source.fingerprint()
        assert isinstance(own, str) and own, f"It is {own!r}."
        source.load(source.views()[0], "train")
        assert source.fingerprint() == own, "It is another once rows were read."
        arguments = [subject.entry.dist, subject.entry.ref, json.dumps(dict(subject.options)), str(root)]
        done = subprocess.run(
            [sys.executable, "-c", _FINGERPRINT, *arguments, str(_HELD_OUT)],
            capture_output=True,
            text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "PYTHONHASHSEED": "7"},
        )
        assert done.returncode == 0, f"In a process of its own it fails: {done.stderr.strip().splitlines()[-1]}"
        other = done.stdout.strip().splitlines()[-1]
        assert other == own, f"It was {own[:16]}…, and in another process {other[:16]}…"


def change(subject: Subject) -> None:
    """Whatever changes rows changes the fingerprint: other content of a file, and another value of an option."""
    with _root(subject) as root:
        own = source_of(subject, root).fingerprint()
        tried = []
        for name, text in subject.example.files.items():
            path = root / name
            path.write_text(_edited(text), encoding="utf-8")
            tried.append(f"other content of {name}")
            assert source_of(subject, root).fingerprint() != own, f"It stays with {tried[-1]}."
            path.write_text(text, encoding="utf-8")
        for option, value in _others(subject):
            try:
                source = source_of(subject, root, {**subject.options, option: value})
                moved = source.fingerprint() != own
                same = moved or _everything(source) == _everything(source_of(subject, root))
            except (ConfigError, DataError):
                continue  # a value that does not fit, and says so
            tried.append(f"{option} = {value!r}")
            assert moved or same, f"It stays with {tried[-1]}, which gives other rows."
    if not tried:
        raise NotApplicable("it has neither files nor an option that could be another")


def _everything(source: Any) -> list[list[str]]:
    return [_rows(source, view, split) for view in source.views() for split in ("train", "heldout")]


def _edited(text: str) -> str:
    """The text with one letter of its last word exchanged, so that it stays what it is: lines, or JSON."""
    for place in range(len(text) - 1, -1, -1):
        if text[place].isalpha():
            return f"{text[:place]}{'e' if text[place] != 'e' else 'a'}{text[place + 1 :]}"
    return text + "a"


def _others(subject: Subject) -> Iterator[tuple[str, Any]]:
    """Whole-number options, each with another value: the only ones that can be changed without knowing them."""
    config = subject.config()
    if config is None:
        return
    for item in fields(config):
        value = getattr(config, item.name)
        if item.init and type(value) is int:
            try:
                replace(config, **{item.name: value + 1})
            except ValueError:
                continue
            yield item.name, value + 1


CHECKS: tuple[Callable[[Subject], None], ...] = (views, iterates, held_out, fingerprint, change)
