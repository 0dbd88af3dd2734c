"""What the tutorial shows is what a new plugin has, and what it tells to write works. The whole page is run in
``tests/packages``."""

from __future__ import annotations

import importlib
import re
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from phasegate.registry.entries import Entry
from phasegate.testing.author.names import names_of
from phasegate.testing.author.package import files_of
from phasegate.testing.checks import NotApplicable, checks_of, entries_of

PAGE = (Path(__file__).parents[3] / "docs" / "tutorial.md").read_text(encoding="utf-8")
NEW = files_of(names_of("phasegate-compass"), ["router"], [])
SOURCE = "src/phasegate_compass/"


def shown(mark: str) -> dict[str, str]:
    """Python blocks whose first line is ``# mark path``, by path."""
    found = re.findall(rf"^```python\n# {mark}(\S+)\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
    return dict(found)


def written() -> Mapping[str, str]:
    """The files of the package once a reader has saved what the page says."""
    saved = {path: text for path, text in shown("").items() if path != "in"}
    assert set(saved) == {f"{SOURCE}routers.py", "tests/test_conformance.py", "tests/test_routers.py"}
    assert set(saved) <= set(NEW)
    return {**NEW, **saved}


@pytest.fixture
def router(install_plugin: Callable[..., Path]) -> Entry:
    texts = written()
    files = {path.removeprefix(SOURCE): text for path, text in texts.items() if path.startswith(SOURCE)}
    files["own_tests.py"] = texts["tests/test_routers.py"]
    install_plugin("phasegate-compass", files.pop("plugin.py"), files=files, requires=["phasegate>=0.1,<2"])
    (entry,) = entries_of("phasegate-compass")
    return entry


def test_code_that_is_explained_is_the_code_that_is_written() -> None:
    parts = shown("in ")
    assert set(parts) == {f"{SOURCE}plugin.py", f"{SOURCE}routers.py"}
    assert [path for path, text in parts.items() if text not in NEW[path]] == []


def test_every_file_that_the_page_names_is_one_of_the_package() -> None:
    named = re.findall(r"`((?:src|tests|\.github)/\S+|pyproject\.toml)`", PAGE)
    assert [name for name in named if name not in NEW and name != "tests/"] == []


def test_ruff_finds_nothing_in_what_the_page_tells_to_write(tmp_path: Path) -> None:
    for path, text in written().items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text, encoding="utf-8")
    for command in (["check", "--no-cache"], ["format", "--check", "--no-cache"]):
        done = subprocess.run(
            [sys.executable, "-m", "ruff", *command, "."], cwd=tmp_path, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr


def test_the_tests_of_the_page_pass(router: Entry) -> None:
    tests = importlib.import_module("phasegate_compass.own_tests")
    for learn in (False, True):
        tests.test_logits_are_cosines_over_the_temperature(learn)
    tests.test_a_temperature_that_is_learnt_gets_a_gradient()


@pytest.mark.parametrize("options", [{}, {"learn": True}])
def test_the_router_of_the_page_keeps_every_promise(options: dict[str, bool], router: Entry) -> None:
    kept = []
    for check in checks_of(router, options):
        if check.name == "compile":
            continue  # takes long, and is run with the whole page
        try:
            check(router)
        except NotApplicable:
            continue
        kept.append(check.name)
    assert len(kept) > 10
