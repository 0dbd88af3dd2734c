"""New plugins as their authors meet them: installed with pip, and tested by their own tests."""

from __future__ import annotations

import itertools
import time
from pathlib import Path
from typing import Any

import pytest
from phasegate.testing.author.names import names_of
from phasegate.testing.author.package import files_of, write_package
from phasegate.testing.author.parts import PARTS, USES

pytestmark = pytest.mark.slow

SINGLES = [[kind] for kind in PARTS]
PAIRS = [list(pair) for pair in itertools.combinations(PARTS, 2)]
TESTS = ("-q", "--import-mode=importlib", "-p", "no:cacheprovider", "--no-header")


def write(folder: Path, name: str, kinds: list[str], hooks: list[str]) -> Path:
    names = names_of(name)
    write_package(folder / name, files_of(names, kinds, hooks))
    return folder / name


@pytest.fixture(scope="module")
def packages(environment: Any, tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Path]]:
    """Every kind alone, every pair, and all kinds and hooks together, installed with one call of pip."""
    folder = tmp_path_factory.mktemp("packages")
    found = {
        "alone": [write(folder, f"only-{kind}", [kind], []) for (kind,) in SINGLES],
        "pairs": [write(folder, f"pair-{'-'.join(pair)}", pair, []) for pair in PAIRS],
        "together": [write(folder, "all-together", list(PARTS), list(USES))],
    }
    environment.install(*itertools.chain(*found.values()), cwd=folder)
    return found


def test_the_tests_of_a_new_plugin_pass(packages: dict[str, list[Path]], environment: Any) -> None:
    alone = packages["alone"]
    told = environment.done("python", "-m", "pytest", *TESTS, *alone, cwd=alone[0].parent)
    assert " passed" in told
    assert "failed" not in told


def test_the_tests_of_every_pair_and_of_all_together_pass(packages: dict[str, list[Path]], environment: Any) -> None:
    """A component is the same text beside others as alone, where all its promises are looked at; what is new is that
    several stand in one package."""
    promises = ("-k", "not conforms or loads or options or light")
    several = [*packages["pairs"], *packages["together"]]
    told = environment.done("python", "-m", "pytest", *TESTS, *promises, *several, cwd=several[0].parent)
    assert " passed" in told
    assert "failed" not in told


def test_ruff_and_mypy_find_nothing_in_new_plugins(packages: dict[str, list[Path]], environment: Any) -> None:
    (together,) = packages["together"]
    everything = [*itertools.chain(*packages.values())]
    environment.done("python", "-m", "ruff", "check", "--no-cache", *everything, cwd=together)
    environment.done("python", "-m", "ruff", "format", "--check", "--no-cache", *everything, cwd=together)
    # As its readme says, with its own settings; sources of the others beside it, in the same process.
    others = [package for package in everything if package != together]
    sources = [path for package in others for path in (package / "src").iterdir() if path.suffix != ".egg-info"]
    told = environment.done("python", "-m", "mypy", "src", "tests", *sources, cwd=together)
    assert told.startswith("Success: no issues found in ")


def test_from_nothing_to_a_checked_plugin_in_under_a_minute(environment: Any, tmp_path: Path) -> None:
    start = time.monotonic()
    told = environment.done(
        "platform", "plugin", "new", "phasegate-mine", "--kind", "router", "--kind", "gate", cwd=tmp_path
    )
    assert "  pip install -e phasegate-mine\n  platform plugin check phasegate-mine\n" in told
    environment.install("-e", "phasegate-mine", cwd=tmp_path)
    checked = environment.done("platform", "plugin", "check", "phasegate-mine", cwd=tmp_path)
    seconds = time.monotonic() - start
    assert " 0 failed, " in checked.splitlines()[-1]
    assert "router/cosine" in checked
    assert "gate/repetition" in checked
    print(f"plugin new, pip install, plugin check: {seconds:.1f} s")
