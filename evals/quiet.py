"""Silence for lm-eval: its progress bars, and those of its data sets, and warnings off, its errors on."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any

_BARS = ("lm_eval.api.model", "lm_eval.api.task", "lm_eval.models.huggingface")


@contextmanager
def quiet() -> Iterator[None]:
    """Inside the block lm-eval and transformers log errors only, and lm-eval's progress bars stay dark.

    ``HFLM.loglikelihood_rolling`` opens a bar per batch whatever it is told, so the name ``tqdm`` in lm-eval's own
    modules is replaced for the time of the block; bars of everyone else are untouched.
    """
    from datasets import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

    loggers = [(logging.getLogger(name), logging.getLogger(name).level) for name in ("lm_eval", "transformers")]
    modules = [import_module(name) for name in _BARS]
    bars = [(module, vars(module)["tqdm"]) for module in modules]
    dark = are_progress_bars_disabled()
    tqdm: Any = bars[0][1]

    class Dark(tqdm):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **(kwargs | {"disable": True}))

    try:
        disable_progress_bars()
        for logger, _ in loggers:
            logger.setLevel(logging.ERROR)
        for module in modules:
            vars(module)["tqdm"] = Dark
        yield
    finally:
        if not dark:
            enable_progress_bars()
        for logger, level in loggers:
            logger.setLevel(level)
        for module, bar in bars:
            vars(module)["tqdm"] = bar
