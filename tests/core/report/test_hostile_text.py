"""Pages about hostile data: nothing of it is a tag, a script, a style, a template or Markdown, in any rendering."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from markdown import markdown
from markdown_it import MarkdownIt
from phasegate.core.report.blocks import Cell, Code, Document, Prose, Section, Table
from phasegate.core.report.rendering import as_html, as_markdown, plain
from phasegate.core.report.report import write_report

Make = Callable[..., Any]
Acting = Callable[[str], list[str]]
TAGS = {"a", "body", "caption", "circle", "dd", "details", "div", "dl", "dt", "figcaption", "figure", "footer", "g"}
TAGS |= {"h1", "h2", "head", "header", "html", "li", "link", "main", "meta", "nav", "ol", "p", "path", "pre", "rect"}
TAGS |= {"section", "small", "span", "strong", "style", "summary", "svg", "table", "tbody", "td", "text", "th", "thead"}
TAGS |= {"title", "tr", "ul"}
IN_MARKDOWN = {"code", "h1", "h2", "li", "p", "pre", "strong", "table", "tbody", "td", "th", "thead", "tr", "ul"}


def commonmark(text: str) -> str:
    return str(MarkdownIt("commonmark").enable(["table", "strikethrough"]).render(text))


def python_markdown(text: str) -> str:
    return markdown(text, extensions=["tables"])


class Seen(HTMLParser):
    """The tags of a page and the attributes that could run or load something."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.dangerous: list[tuple[str, str | None]] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        for name, value in attrs:
            leads = name in {"action", "formaction", "href", "xlink:href"} and "javascript:" in (value or "")
            if leads or name.startswith("on") or name in {"src", "srcdoc"} or (name, tag) == ("style", "svg"):
                self.dangerous.append((name, value))


def unharmed(text: str) -> None:
    page = Seen(text)
    assert page.tags - TAGS == set() and page.dangerous == []
    assert text.count("<style>") == text.count("</style>") == 1 and "{{7*7}}" in text


@pytest.fixture
def page(hostile: str) -> Document:
    """A page whose every text is hostile."""
    table = Table(caption=hostile, columns=(hostile, "b"), rows=((Cell(text=hostile, note=hostile), Cell(text="1")),))
    blocks = (Prose(paragraphs=(hostile, f"# {hostile}", f"- {hostile}")), Code(title=hostile, text=hostile), table)
    section = Section(key="one", title=hostile, blocks=blocks)
    return Document(title=hostile, kind="run", about=((hostile, hostile),), answer=(hostile,), sections=(section,))


def test_a_page_of_hostile_texts_is_a_page_of_texts(page: Document, acting: Acting) -> None:
    text = as_html(page)
    unharmed(text)
    assert acting(text) == [] and text.count("&lt;script&gt;") >= 12


@pytest.mark.parametrize("read", [commonmark, python_markdown])
def test_markdown_of_hostile_texts_says_what_they_say(
    page: Document, acting: Acting, read: Callable[[str], str]
) -> None:
    text = as_markdown(page)
    shown = Seen(read(text))
    assert acting(text) == [] and shown.tags - IN_MARKDOWN == set() and shown.dangerous == []


LINES = ("# a", "## a", "- a", "+ a", "1. a", "12) a", "> a", "---", "===", "* a", "a & b &lt;", "~~a~~", "<b>", "$x$")


@pytest.mark.parametrize("line", LINES)
def test_a_line_that_markdown_would_read_stays_a_line(line: str) -> None:
    shown = commonmark(plain(line)).strip()
    assert re.fullmatch(r"<p>.*</p>", shown) and unescape(shown[3:-4]) == line


def test_a_report_on_a_run_with_hostile_names_is_a_page(make: Make, hostile: str, acting: Acting) -> None:
    hostile = hostile.replace("\ud800", "")  # which no file of ours can hold
    made = make(criterion=hostile, text=f"name: x # {hostile}\n")
    manifest, rows = made.run / "manifest.json", made.run / "stages.json"
    told = json.loads(manifest.read_text(encoding="utf-8")) | {"experiment": hostile}
    manifest.write_text(json.dumps(told), encoding="utf-8")
    stages = json.loads(rows.read_text(encoding="utf-8"))
    stages["stages"][0] |= {"reason": hostile, "action": hostile}
    rows.write_text(json.dumps(stages), encoding="utf-8")
    html, text, data = (write_report(made.run, form, made.store).read_text("utf-8") for form in ("html", "md", "json"))
    unharmed(html)
    assert acting(html) == acting(text) == []
    assert all(Seen(read(text)).tags - IN_MARKDOWN == set() for read in (commonmark, python_markdown))
    assert hostile in strings_of(json.loads(data))


def test_a_report_on_a_study_with_hostile_names_is_a_page(
    study: Callable[..., Path], hostile: str, acting: Acting
) -> None:
    folder = study("orders", experiment=hostile, study=hostile)
    results = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    results["rows"][0]["name"] = results["rows"][1]["note"] = hostile
    (folder / "results.json").write_text(json.dumps(results), encoding="utf-8")
    html, text = (write_report(folder, form, folder / "none").read_text("utf-8") for form in ("html", "md"))
    unharmed(html)
    assert acting(html) == acting(text) == []
    assert all(Seen(read(text)).tags - IN_MARKDOWN == set() for read in (commonmark, python_markdown))


def strings_of(value: Any) -> set[str]:
    def walk(one: Any) -> Iterator[str]:
        if isinstance(one, str):
            yield one
        for inner in one.values() if isinstance(one, dict) else one if isinstance(one, list) else ():
            yield from walk(inner)

    return set(walk(value))
