"""Five ternary digits to a byte."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

PER_BYTE = 5
_POWERS = 3 ** np.arange(PER_BYTE)
_BYTES = 3**PER_BYTE  # 243 of 256 values have a meaning
# shape: (243, 5)
_TRITS = (np.arange(_BYTES)[:, None] // _POWERS % 3 - 1).astype(np.int8)


def pack(trits: npt.NDArray[np.int8]) -> bytes:
    """Write trits in {-1, 0, 1}, of any shape and in row-major order, five to a byte: 1.6 bits each.

    A byte is the number whose digits to base 3 are trit + 1, the first trit least significant; what the last byte has
    left is 0. Raises ``ValueError`` for other numbers.
    """
    flat = trits.ravel()
    if flat.dtype != np.int8 or (flat.size and (flat.min() < -1 or flat.max() > 1)):
        raise ValueError(f"trits are int8 numbers in -1, 0 and 1, not {flat.dtype} up to {flat.max(initial=0)}")
    digits = np.zeros((packed_size(flat.size), PER_BYTE), np.uint8)  # shape: (bytes, 5)
    digits.reshape(-1)[: flat.size] = flat + np.int8(1)
    packed = digits[:, 0].copy()
    for place in range(1, PER_BYTE):
        packed += digits[:, place] * np.uint8(_POWERS[place])
    return packed.tobytes()


def unpack(packed: bytes | memoryview, count: int) -> npt.NDArray[np.int8]:
    """The ``count`` trits that ``pack`` wrote, shape (count,), int8; ``ValueError`` for bytes that it never writes."""
    if len(packed) != packed_size(count):
        raise ValueError(f"{count} trits take {packed_size(count)} bytes, not {len(packed)}")
    values = np.frombuffer(packed, np.uint8)
    if values.size and values.max() >= _BYTES:
        raise ValueError(f"no five trits give the byte {values.max()}")
    left = -count % PER_BYTE
    if left and values[-1] >= 3 ** (PER_BYTE - left):
        raise ValueError("the last byte holds more trits than there are")
    return np.take(_TRITS, values, axis=0).reshape(-1)[:count]


def packed_size(count: int) -> int:
    """How many bytes ``count`` trits take."""
    return -(-count // PER_BYTE)
