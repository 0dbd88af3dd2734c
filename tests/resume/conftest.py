"""Unbroken runs to compare with, and folders that a killed process left."""

from __future__ import annotations

import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from .experiments import PERSPECTIVE, SHORT, SIX
from .harness import Forge, Whole, context, whole

FIRST = ("--set=order=foundation",)


@pytest.fixture(scope="session")
def server() -> Any:
    """The fork server that all lives come from."""
    return context()


@pytest.fixture(scope="session")
def first(server: Any, tmp_path_factory: pytest.TempPathFactory) -> Whole:
    """An unbroken run of one phase."""
    return whole(Forge(server=server, folder=tmp_path_factory.mktemp("first"), experiment=SHORT, settings=FIRST))


@pytest.fixture(scope="session")
def short(server: Any, tmp_path_factory: pytest.TempPathFactory) -> Whole:
    """An unbroken run of two phases."""
    return whole(Forge(server=server, folder=tmp_path_factory.mktemp("short"), experiment=SHORT))


@pytest.fixture(scope="session")
def six(server: Any, tmp_path_factory: pytest.TempPathFactory) -> Whole:
    """An unbroken run of the six phases."""
    return whole(Forge(server=server, folder=tmp_path_factory.mktemp("six"), experiment=SIX))


@pytest.fixture(scope="session")
def perspective(server: Any, tmp_path_factory: pytest.TempPathFactory) -> Whole:
    """An unbroken run of the five stages of the Perspective curriculum."""
    return whole(Forge(server=server, folder=tmp_path_factory.mktemp("perspective"), experiment=PERSPECTIVE))


@pytest.fixture(scope="session")
def left(first: Whole, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, Path], Forge]:
    """What a process leaves that is killed in ``training`` or before its stage is ``committed``, as a copy."""
    traps = {
        "training": {"at": "phasegate.core.cli.watching:Watch.reached", "call": 7},
        "committed": {"at": "phasegate.core.run.loop:commit"},
    }
    made: dict[str, Forge] = {}

    def copy(when: str, folder: Path) -> Forge:
        if when not in made:
            made[when] = first.twin(tmp_path_factory.mktemp(when))
            code, life = made[when].run({**traps[when], "do": "kill"})
            assert code == -signal.SIGKILL, life.said()[-2000:]
        shutil.copytree(made[when].folder, folder, dirs_exist_ok=True)
        return first.twin(folder)

    return copy
