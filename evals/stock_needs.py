"""What a benchmark needs besides data, asked before anything is generated."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec

from .stock_tasks import StockTask


def lacking(name: str, task: StockTask, allow_code: bool) -> str | None:
    """What ``task`` lacks here and how to get it; None where it lacks nothing."""
    if task.needs == "code":
        return _lacking_for_code(name, allow_code)
    return _lacking_for_ifeval(name) if task.needs == "ifeval" else None


def _lacking_for_code(name: str, allow_code: bool) -> str | None:
    if not allow_code:
        return (
            f"benchmark '{name}' runs programs that the model writes, which was not allowed: allow code execution "
            "(--allow-code-execution), on a machine where that may go wrong."
        )
    if os.name != "posix":
        return f"benchmark '{name}' needs a POSIX system to limit programs that the model writes, not {sys.platform}."
    return None


def _lacking_for_ifeval(name: str) -> str | None:
    packages = [package for package in ("immutabledict", "langdetect", "nltk") if find_spec(package) is None]
    if packages:
        return f"benchmark '{name}' needs {', '.join(packages)}: install phasegate[ifeval]."
    import nltk

    try:
        nltk.data.find("tokenizers/punkt_tab/english/")
    except LookupError:
        return (
            f"benchmark '{name}' needs nltk's sentence splitter: run `python -m nltk.downloader punkt_tab` once while "
            "online, or put its folder under $NLTK_DATA/tokenizers/punkt_tab."
        )
    return None


@contextmanager
def steady_languages(task: StockTask) -> Iterator[None]:
    """Inside the block langdetect draws from a fixed seed, where ``task`` uses it: its answers vary otherwise."""
    if task.needs != "ifeval":
        yield
        return
    from langdetect import DetectorFactory

    before = DetectorFactory.seed
    DetectorFactory.seed = 0
    try:
        yield
    finally:
        DetectorFactory.seed = before
