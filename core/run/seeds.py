"""Random streams that follow from what a stage is, not from what ran before it in the process."""

from __future__ import annotations

import hashlib
import random

from .fingerprint import Recipe, canonical


def derive(identity: Recipe | str | int, *labels: str | int) -> int:
    """The seed of one named stream of a stage, in [0, 2**31).

    ``identity`` is a recipe, its digest, or a plain seed; ``labels`` name the stream ("data", "sft", 3).
    Equal arguments give equal seeds in every process; labels are kept apart, so ("a", "bc") is not ("ab", "c").
    """
    root = identity.digest if isinstance(identity, Recipe) else identity
    data = hashlib.sha256(canonical([root, *labels]).encode("ascii")).digest()
    return int.from_bytes(data[:4], "big") >> 1


def seed_everything(seed: int) -> None:
    """Sets the global generators of python, numpy and torch (all devices) to ``seed``, in [0, 2**32)."""
    import numpy
    import torch

    random.seed(seed)
    numpy.random.seed(seed)
    torch.manual_seed(seed)
