"""The tutorial as its reader goes through it: every block of the page, in order, in one shell."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.slow

PAGE = (Path(__file__).parents[2] / "docs" / "tutorial.md").read_text(encoding="utf-8")
_BLOCK = re.compile(r"^```(\w+)( not run)?\n(.*?)^```$", re.DOTALL | re.MULTILINE)
# The reader's environment gets its libraries from the network; here it sees those of this one, among which is a
# checkout of the platform. It gets the platform as a wheel, as the reader does. Builds are not isolated, so that the
# setuptools that Python 3.11 puts into a new environment, which is too old, must not be found first.
_VENV = "python3 -m venv .venv\n"
_SEEN = "import site; site.addsitedir({!r})".format(sysconfig.get_path("purelib"))
_PATH = ".venv/lib/python{}.{}/site-packages/libraries.pth".format(*sys.version_info)


def script(page: str) -> str:
    """The page as a script for a shell: commands as they stand, files where their first lines say."""
    parts = ["set -euo pipefail\n"]
    for language, skipped, text in _BLOCK.findall(page):
        named = re.match(r"# (\S+)\n", text)
        if skipped or text.startswith("# in "):
            continue
        if language == "bash":
            made = f"{shlex.quote(sys.executable)} -m venv .venv\necho {shlex.quote(_SEEN)} > {_PATH}\n"
            given = ".venv/bin/pip uninstall --quiet --yes setuptools\n"
            given += '.venv/bin/pip install --quiet --force-reinstall "$PIP_FIND_LINKS"/phasegate-*.whl\n'
            parts.append(text.replace(_VENV, made + given))
            continue
        assert named, f"a block is no command and names no file: {text[:60]}"
        parts.append(f"cat > {named[1]} <<'END_OF_BLOCK'\n{text[named.end() :]}END_OF_BLOCK\n")
    return "".join(parts)


def test_only_what_needs_an_account_is_not_run() -> None:
    assert [text for _, skipped, text in _BLOCK.findall(PAGE) if skipped] == [
        "pip install twine\ntwine upload dist/*\n"
    ]


@pytest.mark.skipif(os.name == "nt", reason="the page is written for a POSIX shell")
def test_the_whole_page_works_from_its_first_line_to_its_last(environment: Any, tmp_path: Path) -> None:
    settings = {
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": "1",
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        "PIP_FIND_LINKS": str(environment.wheels),
        "PIP_NO_BUILD_ISOLATION": "0",  # pip reads this one backwards: 0 means no isolation
        "PIP_NO_DEPS": "1",
        "PIP_NO_INDEX": "1",
    }
    kept = {name: value for name, value in os.environ.items() if name not in {"PYTHONPATH", "VIRTUAL_ENV"}}
    done = subprocess.run(
        ["bash", "-c", script(PAGE)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        env={**kept, **settings},
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    told = done.stdout
    assert "phasegate-compass is written" in told
    assert "router/phasegate-compass:cosine" in told
    assert re.search(r"\d+ passed", told)
    assert " 0 failed, " in told
    assert re.search(r"^  editable +no$", told, re.MULTILINE)
    package = tmp_path / "phasegate-compass"
    assert [path.name for path in (package / "dist").iterdir()] == ["phasegate_compass-0.1.0-py3-none-any.whl"]
    (stage,) = (package / "store").glob("foundation-*")
    assert (stage / "COMPLETE").is_file()
