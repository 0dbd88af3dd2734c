"""A hash of a distribution's code: from what pip recorded, or from the sources where they may be edited."""

from __future__ import annotations

import csv
import hashlib
import json
from collections.abc import Iterable, Iterator
from importlib.metadata import Distribution
from importlib.util import find_spec
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit


def editable(metadata: Distribution) -> bool:
    """Say whether the distribution runs from sources that may change under one version (PEP 610, or no RECORD)."""
    return _project(metadata) is not None or not _recorded(metadata)


def code_hash(metadata: Distribution, modules: Iterable[str]) -> str:
    """Return ``sha256:…`` over the distribution's code.

    A wheel is hashed from its RECORD, without installer files and scripts. An editable install is hashed from the
    ``.py`` files of the packages that hold ``modules``, so that an edit in place is seen.
    """
    project = _project(metadata)
    lines = _recorded(metadata) if project is None else []
    if not lines:
        lines = sorted({line for root in _roots(metadata, modules, project) for line in _hashed(root)})
    return f"sha256:{hashlib.sha256(chr(10).join(lines).encode()).hexdigest()}"


def _project(metadata: Distribution) -> Path | None:
    """Return the folder of an editable install, or None for any other."""
    text = metadata.read_text("direct_url.json")
    told = json.loads(text) if text else {}
    if not told.get("dir_info", {}).get("editable", False):
        return None
    from urllib.request import url2pathname

    return Path(url2pathname(urlsplit(told["url"]).path)).resolve()


def _recorded(metadata: Distribution) -> list[str]:
    rows = csv.reader((metadata.read_text("RECORD") or "").splitlines())
    return sorted(f"{row[0]} {row[1]}" for row in rows if len(row) >= 2 and row[1] and _is_code(PurePosixPath(row[0])))


def _is_code(path: PurePosixPath) -> bool:
    return ".." not in path.parts and not path.parts[0].endswith(".dist-info")


def _roots(metadata: Distribution, modules: Iterable[str], project: Path | None) -> Iterator[Path]:
    names = {*modules, *(metadata.read_text("top_level.txt") or "").split()}
    # Most modules lie in one package, which is read once.
    for root in sorted({root for name in names if (root := _root(name)) is not None}):
        if project is None or root.resolve().is_relative_to(project):
            yield root


def _root(module: str) -> Path | None:
    """Return the outermost regular package that holds ``module``, or the file of a module outside any."""
    parts = module.split(".")
    for depth in range(1, len(parts) + 1):
        spec = find_spec(".".join(parts[:depth]))
        if spec is None:
            return None
        if spec.origin is not None and spec.has_location:
            origin = Path(spec.origin)
            return origin.parent if spec.submodule_search_locations else origin
    return None


def _hashed(root: Path) -> Iterator[str]:
    for path in [root] if root.is_file() else _sources(root):
        name = path.relative_to(root.parent).as_posix()
        yield f"{name} {hashlib.sha256(path.read_bytes()).hexdigest()}"


def _sources(package: Path) -> Iterator[Path]:
    """Yield the ``.py`` files of a regular package; folders without ``__init__.py`` (tests, docs) are not its code."""
    yield from package.glob("*.py")
    for folder in package.iterdir():
        if (folder / "__init__.py").is_file():
            yield from _sources(folder)
