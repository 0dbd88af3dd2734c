"""Measuring without a trace: random streams, train mode and tokenizer are what they were before."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import torch


@contextmanager
def undisturbed(model: torch.nn.Module, tokenizer: Any = None, seed: int | None = None) -> Iterator[None]:
    """Run the block in eval mode, and restore what training and evaluation libraries would leave changed.

    Restored: the states of Python's, numpy's and torch's random generators, the train flag of every module
    (``HFLM`` calls ``eval()`` and leaves it), and the tokenizer's padding (``HFLM`` may add a pad token).
    ``seed`` starts the block's own random streams.
    """
    import torch

    python, numpy_state, cpu = random.getstate(), np.random.get_state(), torch.random.get_rng_state()
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else None
    modes = [(module, module.training) for module in model.modules()]
    padding = None if tokenizer is None else (tokenizer.pad_token, tokenizer.padding_side)
    try:
        model.eval()
        if seed is not None:
            random.seed(seed)
            np.random.seed(seed % 2**32)
            torch.manual_seed(seed)
        yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy_state)
        torch.random.set_rng_state(cpu)
        if cuda is not None:
            torch.cuda.set_rng_state_all(cuda)
        for module, mode in modes:
            module.training = mode
        if padding is not None:
            if tokenizer.pad_token != padding[0]:
                tokenizer.pad_token = padding[0]
            tokenizer.padding_side = padding[1]
