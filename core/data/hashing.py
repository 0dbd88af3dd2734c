"""Stable hashes and random streams: the same in every process, on every machine, whatever ran before."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import numpy as np


def digest(*parts: Any) -> str:
    """Hash JSON-able parts to 24 hexadecimal digits; anything without a stable form raises ``TypeError``."""
    text = json.dumps(parts, sort_keys=True, ensure_ascii=True, separators=(",", ":"))
    return hashlib.blake2b(text.encode(), digest_size=12).hexdigest()


def unit(*parts: Any) -> float:
    """Map parts to a number in [0, 1) that looks uniform: the coin of every stable split."""
    text = json.dumps(parts, sort_keys=True, ensure_ascii=True, separators=(",", ":"))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") / 2**64


def stream(*parts: Any) -> np.random.Generator:
    """A random stream named by its parts; streams with different names are independent."""
    text = json.dumps(parts, sort_keys=True, ensure_ascii=True, separators=(",", ":"))
    seed = int.from_bytes(hashlib.blake2b(text.encode(), digest_size=16).digest(), "big")
    return np.random.Generator(np.random.PCG64(seed))
