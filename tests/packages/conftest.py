"""A fresh environment that sees the libraries of this one, with the platform installed as a user installs it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import tomllib
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
# Neither the network nor isolated builds: the backend is that of this environment.
OFFLINE = ("--no-deps", "--no-build-isolation", "--no-index", "--disable-pip-version-check", "--quiet")


@dataclass(frozen=True, slots=True, kw_only=True)
class Environment:
    """A virtual environment in ``folder``; ``wheels`` holds a wheel of the platform as this checkout makes it."""

    folder: Path
    wheels: Path

    @property
    def scripts(self) -> Path:
        """Where its commands lie."""
        return self.folder / ("Scripts" if os.name == "nt" else "bin")

    def run(self, *command: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
        """Run one of its commands as in a shell in which it is active."""
        path = f"{self.scripts}{os.pathsep}{os.environ['PATH']}"
        kept = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        return subprocess.run(
            [str(self.scripts / command[0]), *map(str, command[1:])],
            cwd=cwd,
            capture_output=True,
            text=True,
            check=False,
            env={**kept, "PATH": path, "OMP_NUM_THREADS": "1", "COLUMNS": "200", "PIP_NO_INPUT": "1"},
        )

    def done(self, *command: str | Path, cwd: Path) -> str:
        """Run one of its commands, which must succeed, and return what it printed."""
        found = self.run(*command, cwd=cwd)
        assert found.returncode == 0, f"{command[:4]}\n{found.stdout[-4000:]}\n{found.stderr[-4000:]}"
        return found.stdout

    def install(self, *what: str | Path, cwd: Path) -> None:
        """Install folders or wheels with pip, in one call."""
        pip("--python", self.folder, "install", *OFFLINE, *what, cwd=cwd)


@pytest.fixture(scope="session")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """An environment that is empty but for the platform, installed as a wheel of what is in this checkout."""
    folder = tmp_path_factory.mktemp("environment") / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    environment = Environment(folder=folder, wheels=folder.with_name("wheels"))
    site = sysconfig.get_path("purelib", "venv", {"base": str(folder)})
    libraries = sysconfig.get_path("purelib")
    (Path(site) / "libraries.pth").write_text(f"import site; site.addsitedir({libraries!r})\n", encoding="utf-8")
    source = folder.with_name("source")
    _copy(source)
    pip("wheel", *OFFLINE, "--wheel-dir", environment.wheels, source, cwd=folder)
    # pip sees the checkout among the libraries and would call that the platform.
    environment.install("--force-reinstall", *environment.wheels.iterdir(), cwd=folder)
    return environment


def pip(*arguments: str | Path, cwd: Path) -> None:
    """Run the pip of this environment, which must succeed."""
    done = subprocess.run(
        [sys.executable, "-m", "pip", *map(str, arguments)], cwd=cwd, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-4000:]


def _copy(folder: Path) -> None:
    """Copy what makes the wheel, so that building it leaves nothing behind in the checkout."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    packages = project["tool"]["setuptools"]["packages"]
    folder.mkdir()
    for name in ("LICENSE", "README.md", "__init__.py", "py.typed", "pyproject.toml"):
        shutil.copy(ROOT / name, folder / name)
    for top in sorted({name.split(".")[1] for name in packages if "." in name}):
        shutil.copytree(ROOT / top, folder / top, ignore=shutil.ignore_patterns("__pycache__"))
