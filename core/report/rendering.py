"""One set of facts, three renderings: a page for people, Markdown and JSON for machines."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import asdict
from html import escape
from importlib.metadata import version
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from ...registry.printable import printable
from .blocks import Document
from .drawing import draw, draw_heats, draw_tree

if TYPE_CHECKING:
    from jinja2 import Environment

    from .facts import RunFacts
    from .study_facts import StudyFacts

FORMAT = 1

# What Markdown reads anywhere, and what it reads as a heading, a list or a rule where a line begins.
# (Tags and entities become entities: not every reader knows them behind a backslash.)
_INSIDE = re.compile(r"[\\`*_|\[\]~$]")
_AT_THE_START = re.compile(r"^(\d*)([#=+.)-])(?=[#=+-]*(?:\s|$))")


def as_html(page: Document) -> str:
    """The page as one HTML file that needs nothing else; every text from data is escaped."""
    from markupsafe import Markup

    style = (files(__package__) / "page.css").read_text(encoding="utf-8")
    template = _environment(escape=True).get_template("page.html.jinja")
    text = template.render(
        page=page,
        style=Markup(style),  # our own file, no data
        draw=draw,
        draw_heats=draw_heats,
        draw_tree=draw_tree,
        version=version("phasegate"),
    )
    return _thin(text)


def _thin(text: str) -> str:
    """Without the templates' indents and empty lines, except where they are content."""
    parts = text.split("<pre")
    found = ["\n".join(line.strip() for line in parts[0].split("\n") if line.strip())]
    for part in parts[1:]:
        inside, end, after = part.partition("</pre>")
        found.append(inside + end + "\n".join(line.strip() for line in after.split("\n") if line.strip()))
    return "<pre".join(found) + "\n"


def as_markdown(page: Document) -> str:
    """The page as Markdown; charts are told in words."""
    lines = _environment(escape=False).get_template("page.md.jinja").render(page=page).splitlines()
    kept = [line.rstrip() for place, line in enumerate(lines) if line.strip() or (place and lines[place - 1].strip())]
    return "\n".join(kept).strip() + "\n"


def as_json(facts: RunFacts | StudyFacts, answer: tuple[str, ...], kind: str) -> str:
    """The facts and the answer as strict JSON; what is no finite number becomes null."""
    found = {"format": FORMAT, "kind": kind, "answer": list(answer), **_strict(asdict(facts))}
    return json.dumps(found, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def _environment(escape: bool) -> Environment:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader(str(__package__), package_path=""),
        autoescape=escape,
        undefined=StrictUndefined,
        finalize=_finalized,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["plain"] = plain
    return environment


def _finalized(value: Any) -> Any:
    """What an expression of a template gives, without characters that act; what is markup already was made of such."""
    return printable(value) if type(value) is str else value


def plain(text: str) -> str:
    """A text that Markdown shows as it is, in one line of a table: what has a meaning there is escaped."""
    line = _INSIDE.sub(r"\\\g<0>", escape(" ".join(printable(text).split()), quote=False))
    return _AT_THE_START.sub(r"\1\\\2", line)


def _strict(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): _strict(entry) for key, entry in value.items()}
    if isinstance(value, tuple | list):
        return [_strict(entry) for entry in value]
    return value
