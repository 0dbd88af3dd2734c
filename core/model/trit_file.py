"""``.trit``: one expert in one file, five weights to a byte.

Little-endian: magic ``TRT1``, version u16, expert u16, number of matrices u32; for every matrix, by layer and then by
kind, layer u16, kind u8 (0 gate and up stacked, 1 down), rows u32, columns u32, number of scales u32 (one per row, or
one), scales fp16, packed trits (see ``trits``); at the end the CRC32 of everything before it, u32.
"""

from __future__ import annotations

import hashlib
import struct
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ...registry.atomic import write_bytes
from ...registry.errors import StoreError
from .trits import pack, packed_size, unpack

#: One matrix: trits (R, C), int8 in {-1, 0, 1}, and scales (R,) or (1,), fp16; its weights are scales[:, None] * trits.
MatrixCodes = tuple[npt.NDArray[np.int8], npt.NDArray[np.float16]]
#: All matrices of one expert by layer and kind (``GATE_UP`` or ``DOWN``).
ExpertCodes = Mapping[tuple[int, int], MatrixCodes]

GATE_UP, DOWN = 0, 1
_MAGIC, _VERSION = b"TRT1", 1
_HEADER, _RECORD, _SEAL = "<4sHHI", "<HBIII", struct.Struct("<I")
_AGAIN = "copy it again, or pack the model again"


class Reader:
    """Reads little-endian data from front to back; ``EOFError`` where it ends too early."""

    def __init__(self, data: bytes) -> None:
        self._data = memoryview(data)
        self._place = 0

    @property
    def rest(self) -> memoryview:
        """What was not read yet."""
        return self._data[self._place :]

    def take(self, count: int) -> memoryview:
        """The next ``count`` bytes."""
        if count > len(self.rest):
            raise EOFError(f"{count} bytes are wanted where {len(self.rest)} are left")
        self._place += count
        return self._data[self._place - count : self._place]

    def fields(self, layout: str) -> tuple[Any, ...]:
        """The next values in a layout of ``struct``."""
        return struct.unpack(layout, self.take(struct.calcsize(layout)))

    def scales(self, count: int) -> npt.NDArray[np.float16]:
        """The next ``count`` numbers in fp16."""
        return np.frombuffer(self.take(2 * count), "<f2").astype(np.float16)


def write_expert(path: Path, expert: int, codes: ExpertCodes) -> None:
    """Write one expert to ``path``, whole or not at all; ``StoreError`` where that cannot be done."""
    write_bytes(path, expert_bytes(expert, codes))


def expert_bytes(expert: int, codes: ExpertCodes) -> bytes:
    """What the file of an expert holds."""
    return sealed(struct.pack(_HEADER, _MAGIC, _VERSION, expert, len(codes)) + serialise(codes))


def read_expert(path: Path) -> tuple[int, dict[tuple[int, int], MatrixCodes]]:
    """The number of an expert and its codes, bit for bit; ``StoreError`` for anything but a whole file."""
    data = read_whole(path)
    if data[: len(_MAGIC)] != _MAGIC:
        raise StoreError(f"'{path}' is no .trit file; give a file from the experts folder of a packed model.")
    reader = Reader(data[: -_SEAL.size])
    try:
        _, version, expert, matrices = reader.fields(_HEADER)
        if version != _VERSION:
            raise StoreError(
                f"'{path}' is a .trit file of version {version}, and this phasegate reads version {_VERSION}; update "
                "it, or pack the model again."
            )
        codes = dict(_read_matrix(reader) for _ in range(matrices))
        if len(codes) != matrices or reader.rest:
            raise ValueError(f"{matrices} different matrices were announced, and {len(codes)} fill another length")
    except EOFError as error:
        if is_sealed(data):
            raise StoreError(f"'{path}' has sizes that do not fit what it holds; pack the model again.") from error
        raise StoreError(f"'{path}' ends too early, so it was cut off or damaged; {_AGAIN}.") from error
    except ValueError as error:
        if is_sealed(data):
            raise StoreError(f"'{path}' does not hold an expert ({error}); pack the model again.") from error
        raise _changed(path) from error
    if not is_sealed(data):
        raise _changed(path)
    return expert, codes


def bits_per_weight(codes: ExpertCodes) -> tuple[float, float]:
    """Bits per weight of the packed trits, and apart from them those of the scales; for at least one weight."""
    weights = sum(trits.size for trits, _ in codes.values())
    packed = sum(packed_size(trits.size) for trits, _ in codes.values())
    return 8 * packed / weights, 16 * sum(scales.size for _, scales in codes.values()) / weights


def digest(codes: ExpertCodes) -> bytes:
    """SHA-256 over everything that codes say, 32 bytes; the expert's number is no part of it."""
    return hashlib.sha256(serialise(codes)).digest()


def serialise(codes: ExpertCodes) -> bytes:
    """The matrices of an expert as the file has them; equal codes give equal bytes."""
    parts: list[bytes] = []
    for (layer, kind), (trits, scales) in sorted(codes.items(), key=lambda item: item[0]):
        if trits.ndim != 2 or scales.dtype != np.float16 or scales.shape not in ((1,), trits.shape[:1]):
            raise ValueError(f"no matrix has trits {trits.shape} and scales {scales.shape} in {scales.dtype}")
        parts.append(struct.pack(_RECORD, layer, kind, *trits.shape, scales.size))
        parts.append(scales.astype("<f2").tobytes())
        parts.append(pack(trits))
    return b"".join(parts)


def sealed(data: bytes) -> bytes:
    """``data`` with its CRC32 behind it."""
    return data + _SEAL.pack(zlib.crc32(data))


def is_sealed(data: bytes) -> bool:
    """Whether data ends with the CRC32 of what comes before."""
    end = len(data) - _SEAL.size
    return end >= 0 and _SEAL.pack(zlib.crc32(memoryview(data)[:end])) == data[end:]


def read_whole(path: Path) -> bytes:
    """The content of a file; ``StoreError`` says why not."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise StoreError(f"'{path}' cannot be read ({error.strerror or error}); {_AGAIN}.") from error


def _read_matrix(reader: Reader) -> tuple[tuple[int, int], MatrixCodes]:
    layer, kind, rows, columns, count = reader.fields(_RECORD)
    if kind not in (GATE_UP, DOWN) or count not in (1, rows):
        raise ValueError(f"layer {layer} has a matrix of kind {kind} with {count} scales for {rows} rows")
    scales = reader.scales(count)
    trits = unpack(reader.take(packed_size(rows * columns)), rows * columns)
    return (layer, kind), (trits.reshape(rows, columns), scales)


def _changed(path: Path) -> StoreError:
    return StoreError(f"'{path}' was changed after it was written (its checksum does not match); {_AGAIN}.")
