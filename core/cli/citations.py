"""What the docstrings of a component say, read without importing it, and the papers that they name."""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ...registry.entries import Entry

_NAMES = r"(?:(?:van|von|de|den|der|la) )*[A-Z][\w'’-]+"
_CITED = re.compile(
    rf"(?P<authors>{_NAMES}(?: (?:and|&) {_NAMES})*) (?P<year>(?:19|20)\d\d)\b"
    r"(?:,(?: [^,;().]{1,30},)? (?:arXiv )?(?P<arxiv>\d{4}\.\d{4,5}))?"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Citation:
    """A paper as a docstring names it: authors, year, and its number at arXiv where that is given."""

    authors: str
    year: int
    arxiv: str | None

    def __str__(self) -> str:
        """The paper in one line, with an address where there is one."""
        where = f", https://arxiv.org/abs/{self.arxiv}" if self.arxiv else ""
        return f"{self.authors} {self.year}{where}"


def citations(*texts: str) -> tuple[Citation, ...]:
    """The papers that texts name, each once, in their order; one with a number at arXiv stands for the same without."""
    found: dict[tuple[str, int], Citation] = {}
    for text in texts:
        for match in _CITED.finditer(" ".join(text.split())):
            cited = Citation(authors=match["authors"], year=int(match["year"]), arxiv=match["arxiv"])
            known = found.setdefault((cited.authors, cited.year), cited)
            if known.arxiv is None and cited.arxiv is not None:
                found[cited.authors, cited.year] = cited
    return tuple(found.values())


def docstring_of(entry: Entry) -> str:
    """The docstring of a component's target, from its source where it is defined there, else by importing it."""
    target = entry.component.target
    if isinstance(target, str):
        module, _, name = target.partition(":")
        found = _defined(module, name.split("."))
        if found is not None:
            return found
    return inspect.getdoc(entry.load()) or ""


def _defined(module: str, names: Iterable[str]) -> str | None:
    """The docstring of what ``names`` lead to in a module's source; None where they lead out of it."""
    try:
        spec = find_spec(module)
    except ImportError:
        return None  # importing it will say why
    if spec is None or spec.origin is None or not spec.origin.endswith(".py"):
        return None
    node: ast.AST | None = ast.parse(Path(spec.origin).read_text(encoding="utf-8"))
    for name in names:
        body = getattr(node, "body", [])
        kinds = (ast.AsyncFunctionDef, ast.ClassDef, ast.FunctionDef)
        node = next((child for child in body if isinstance(child, kinds) and child.name == name), None)
    if not isinstance(node, ast.AsyncFunctionDef | ast.ClassDef | ast.FunctionDef):
        return None
    return ast.get_docstring(node) or ""
