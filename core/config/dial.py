"""The one dial: ``size`` derives width, depth, heads, experts, vocabulary, lengths, batch and learning rate.

Anchors: at ``nano`` the values of a curriculum measured on one CPU core; learning rate 1e-3 at width 256; initial
standard deviation 0.02 at large widths (OLMoE, Muennighoff 2024, 2409.02060).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from ...registry.errors import ConfigError
from ...registry.suggest import did_you_mean

WIDTHS: Mapping[str, int] = {"nano": 64, "micro": 128, "small": 256, "base": 512, "large": 1024}
SMALLEST, LARGEST = 32, 8192

_HEAD_DIMS = ((128, 16), (512, 32), (2048, 64), (LARGEST + 1, 128))


@dataclass(frozen=True, slots=True, kw_only=True)
class Derived:
    """Derived values by name, and for each the reason in words."""

    values: Mapping[str, int | float]
    reasons: Mapping[str, str]


def derive(size: str) -> Derived:
    """Return everything that follows from ``size``: a name of ``WIDTHS`` or a width such as ``"384"``.

    Width, depth, head size, vocabulary, sequence length and rows never fall when the width grows; learning rate
    and initial standard deviation never rise. Raises ``ConfigError`` for an unknown name or a width that heads do
    not divide.
    """
    width = _width(size)
    head = _head_dim(width)
    layers = round(3 * math.sqrt(width / 64))
    length = min(width, 4096)
    rows = 16 * 2 ** max(0, math.floor(math.log2(width / 256)))
    rate = _significant(4e-3 * 64 / width, 3)
    std = max(0.02, _significant(0.06 * math.sqrt(64 / width), 2))
    said: dict[str, tuple[int | float, str]] = {
        "hidden_size": (width, f"size {size}" if size in WIDTHS else f"size {size} is a width"),
        "num_hidden_layers": (layers, "3 layers at width 64, growing with the square root of the width"),
        "num_attention_heads": (width // head, f"width {width} in heads of {head}"),
        "head_dim": (head, "16 below width 128, 32 below 512, 64 below 2048, then 128"),
        "moe_intermediate_size": (width, "as wide as the model, in each expert"),
        "num_experts": (9, "eight specialists and a generalist"),
        "num_experts_per_tok": (1, "one expert per token: total, active and expert count of the paper leave no other"),
        "vocab_size": (24 * width, "24 tokens per unit of width"),
        "sequence_length": (length, "as many tokens as the width, at most 4096"),
        "rows": (rows, f"16 rows up to width 256, then in step with it: {rows * length} tokens per optimiser step"),
        "learning_rate": (rate, "4e-3 at width 64, falling as 1 / width"),
        "initializer_range": (std, "0.06 at width 64, falling with the square root of the width, at least 0.02"),
    }
    return Derived(
        values={name: value for name, (value, _) in said.items()},
        reasons={name: reason for name, (_, reason) in said.items()},
    )


def _width(size: str) -> int:
    if size in WIDTHS:
        return WIDTHS[size]
    if not (size.isascii() and size.isdigit()) or len(size) > 6:
        near = did_you_mean(size, WIDTHS)
        raise ConfigError(f"there is no size '{size}'.{near} Sizes: {', '.join(WIDTHS)}, or a width such as 384.")
    width = int(size)
    if not SMALLEST <= width <= LARGEST:
        raise ConfigError(f"size {size} is outside the widths {SMALLEST} to {LARGEST} that the dial covers.")
    head = _head_dim(width)
    if width % head:
        below, above = width - width % head, width - width % head + head
        raise ConfigError(f"size {size} does not divide into heads of {head}; the nearest that do: {below}, {above}.")
    return width


def _head_dim(width: int) -> int:
    return next(head for below, head in _HEAD_DIMS if width < below)


def _significant(number: float, digits: int) -> float:
    return float(f"{number:.{digits}g}")
