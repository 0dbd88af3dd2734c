"""trl without telemetry and without progress bars."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import datasets
from huggingface_hub import constants


def no_telemetry() -> None:
    """Switch the hub library's telemetry off in this process; to be called before a trl trainer is built."""
    os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
    # Read from the environment at import, which may long be past.
    constants.HF_HUB_DISABLE_TELEMETRY = True


@contextmanager
def no_progress_bars() -> Iterator[None]:
    """Silence the bars of ``datasets`` inside."""
    shown = not datasets.utils.are_progress_bars_disabled()
    datasets.disable_progress_bars()
    try:
        yield
    finally:
        if shown:
            datasets.enable_progress_bars()
