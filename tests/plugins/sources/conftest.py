"""A small microworld, and contexts that point into a temporary folder."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")

from phasegate.core.data.source import SourceContext
from phasegate.plugins.sources.microworld import Microworld, MicroworldConfig


@pytest.fixture(scope="session")
def world() -> Microworld:
    """A microworld of full size in facts, with fewer rows."""
    config = MicroworldConfig(training_documents=30_000, chats=4_000, pairs=1_400)
    return Microworld(config, context=SourceContext(root=Path(), name="world"))


@pytest.fixture
def context(tmp_path: Path) -> Callable[..., SourceContext]:
    """The context of a source called mine, with its root in a temporary folder."""

    def made(held_out: float = 0.0) -> SourceContext:
        return SourceContext(root=tmp_path, name="mine", held_out=held_out)

    return made
