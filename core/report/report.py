"""Writing the report on a run or a study: find it, read it, render it, put it in place whole."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from ...registry.atomic import write_text
from ...registry.errors import StoreError
from ..run.store import Store
from .answers import answer
from .reading import run_at, run_facts
from .rendering import as_html, as_json, as_markdown
from .run_page import run_page
from .study_page import study_answer, study_page
from .study_reading import RESULTS, STUDY, study_facts

Format = Literal["html", "md", "json"]


def write_report(folder: Path, form: Format, store: Path, output: Path | None = None) -> Path:
    """Write the report on the run or study in ``folder`` and return its path; ``store`` holds the run's stages.

    ``StoreError`` where the folder is neither, or what it needs is missing or damaged; nothing is written then.
    """
    if not folder.is_dir():
        raise StoreError(f"there is no folder {folder}; name a run below runs/ or a study below studies/")
    if (folder / RESULTS).is_file() or (folder / STUDY).is_file():
        text, home = _study(folder, form), folder
    else:
        run = run_at(folder)
        if not store.is_dir():
            raise StoreError(f"there is no store {store}; if it was moved or lies elsewhere, name it with --store")
        facts = run_facts(run, Store(store))
        page = run_page(facts)
        text = {
            "html": lambda: as_html(page),
            "md": lambda: as_markdown(page),
            "json": lambda: as_json(facts, answer(facts), "run"),
        }[form]()
        home = run.path
    path = home / f"report.{form}" if output is None else output
    if path.is_dir():
        path = path / f"report.{form}"
    if not path.parent.is_dir():
        raise StoreError(f"there is no folder {path.parent} to write the report to; make it, or name another --output")
    write_text(path, text)
    return path


def _study(folder: Path, form: Format) -> str:
    facts = study_facts(folder)
    page = study_page(facts)
    if form == "json":
        return as_json(facts, study_answer(facts), "study")
    return as_html(page) if form == "html" else as_markdown(page)
