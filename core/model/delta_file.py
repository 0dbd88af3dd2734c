"""``.trd``: what turns one expert into another and back (SPEC 2A.11).

Little-endian: magic ``TRD1``, version u16, source u16, target u16, number of layers u16, SHA-256 of the source's codes
and of the target's; for every matrix, by layer and then by kind, layer u16, kind u8, rows u32, columns u32, number of
changes u32, positions of the changed trits in row-major order as LEB128 gaps (unchanged trits since the last change),
one bit per change (least significant first, filled up to a byte with 0), scales of the source and of the target, fp16,
as many as the expert has; at the end the CRC32 of everything before it, u32.

On trits coded 0 to 2 a change is new = (old + 1 + bit) mod 3, so that old = (new - 1 - bit) mod 3: where the original
writes new values in two bits, for each direction in a file of its own, one file with one bit leads both ways.
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ...registry.atomic import write_bytes
from ...registry.errors import ConfigError, StoreError
from .trit_file import (
    ExpertCodes,
    MatrixCodes,
    Reader,
    digest,
    expert_bytes,
    is_sealed,
    read_whole,
    sealed,
)

_MAGIC, _VERSION = b"TRD1", 1
_HEADER, _RECORD = "<4sHHHH32s32s", "<HBIII"
_LONGEST = 5  # bytes of a gap: 35 bits
_AGAIN = "copy it again, or write the deltas again"


@dataclass(frozen=True, slots=True, kw_only=True)
class DeltaReport:
    """What was written for a pair of experts: the name of the ``file``, its ``bytes``, and ``full_bytes`` of the
    target's whole ``.trit``; ``full`` says that this one was written, since the delta had been no smaller.

    ``coded_bits`` are those that positions and changes take in the delta, without scales and headers.
    """

    source: int
    target: int
    file: str
    full: bool
    bytes: int
    full_bytes: int
    changes: int
    weights: int
    coded_bits: int

    @property
    def density(self) -> float:
        """The share of weights that differ."""
        return self.changes / self.weights

    @property
    def bound(self) -> float:
        """Bits per weight below which no code gets that knows this density alone."""
        return information_bound(self.density)

    @property
    def measured(self) -> float:
        """Bits per weight that positions and changes take in the delta, to compare with ``bound``."""
        return self.coded_bits / self.weights


def information_bound(density: float) -> float:
    """H(p) + p bits per weight: which weights differ, and for each that does which of two values it takes.

    A density of 0.1 gives 0.569, 2.8 times less than the 1.6 of packed trits and not the 10 times of the original.
    """
    if density in (0.0, 1.0):
        return density
    rest = 1 - density
    return -density * math.log2(density) - rest * math.log2(rest) + density


def write_delta(folder: Path, i: int, j: int, source: ExpertCodes, target: ExpertCodes) -> DeltaReport:
    """Write ``delta_{i:03d}_{j:03d}.trd``, which leads from expert ``i`` to ``j`` and back; or, where that would be no
    smaller, the whole of ``j`` as ``expert_{j:03d}.trit``.

    Raises ``ConfigError`` for experts of different sizes, and ``StoreError`` where nothing can be written.
    """
    _check_pair(i, j, source, target)
    layers = len({layer for layer, _ in source})
    parts = [struct.pack(_HEADER, _MAGIC, _VERSION, i, j, layers, digest(source), digest(target))]
    changes = weights = coded = 0
    for key in sorted(source):
        (old, old_scales), (new, new_scales) = source[key], target[key]
        positions = np.flatnonzero(old != new)
        step = (new.ravel()[positions] - old.ravel()[positions]) % 3  # 1 or 2
        places = encode_leb128(np.diff(positions, prepend=-1) - 1)
        bits = np.packbits(step == 2, bitorder="little").tobytes()
        parts += [struct.pack(_RECORD, *key, *old.shape, len(positions)), places, bits]
        parts += [scales.astype("<f2").tobytes() for scales in (old_scales, new_scales)]
        changes, weights, coded = changes + len(positions), weights + old.size, coded + len(places) + len(bits)
    delta, whole = sealed(b"".join(parts)), expert_bytes(j, target)
    full = len(delta) >= len(whole)
    name = f"expert_{j:03d}.trit" if full else f"delta_{i:03d}_{j:03d}.trd"
    write_bytes(folder / name, whole if full else delta)
    return DeltaReport(
        source=i,
        target=j,
        file=name,
        full=full,
        bytes=len(whole if full else delta),
        full_bytes=len(whole),
        changes=changes,
        weights=weights,
        coded_bits=8 * coded,
    )


def apply_delta(path: Path, codes: ExpertCodes, *, expert: int) -> dict[tuple[int, int], MatrixCodes]:
    """The codes of the other expert of a delta file, bit for bit, from ``codes``, those of ``expert``: the target's
    from the source's, the source's from the target's.

    Raises ``StoreError`` for a file that is damaged or no delta, for one that belongs to other experts, and for codes
    that are not those that it was made from.
    """
    data = read_whole(path)
    if data[: len(_MAGIC)] != _MAGIC:
        raise StoreError(f"'{path}' is no delta file; give a .trd file that 'platform deltas' wrote.")
    if not is_sealed(data):
        raise StoreError(f"'{path}' was cut off or changed (its checksum does not match); {_AGAIN}.")
    reader = Reader(data[:-4])
    try:
        _, version, source, target, layers, *digests = reader.fields(_HEADER)
        if version != _VERSION:
            raise StoreError(
                f"'{path}' is a delta file of version {version}, and this phasegate reads version {_VERSION}; update "
                "it, or write the deltas again."
            )
        given, sides = (expert, digest(codes)), list(zip((source, target), digests, strict=True))
        if given not in sides:
            raise StoreError(
                f"'{path}' leads from expert {source} to {target} and back, and what is given as expert {expert} is "
                "neither as it was when the file was written; write the deltas of this model again."
            )
        forward = given == sides[0]
        if layers != len({layer for layer, _ in codes}):
            raise ValueError(f"it announces {layers} layers")
        other = {key: _change(reader, key, codes[key], forward) for key in sorted(codes)}
        if reader.rest or digest(other) != digests[forward]:
            raise ValueError("it does not give the expert that it announces")
    except (EOFError, ValueError) as error:
        raise StoreError(f"'{path}' does not hold what a delta holds ({error}); write the deltas again.") from error
    return other


def encode_leb128(values: npt.NDArray[np.int64]) -> bytes:
    """Numbers in [0, 2^35) as LEB128: seven bits to a byte, least significant first, the eighth says that more come."""
    lengths = np.ones(values.shape, np.int64)
    for size in range(1, _LONGEST):
        lengths += values >= 1 << 7 * size
    starts = np.cumsum(lengths) - lengths
    coded = np.zeros(int(lengths.sum()), np.uint8)
    for place in range(_LONGEST):
        (here,) = np.nonzero(lengths > place)
        more = np.where(lengths[here] > place + 1, 0x80, 0)
        coded[starts[here] + place] = values[here] >> 7 * place & 0x7F | more
    return coded.tobytes()


def decode_leb128(coded: memoryview | bytes, count: int) -> tuple[npt.NDArray[np.int64], int]:
    """The first ``count`` numbers, int64, and how many bytes they take; ``EOFError`` and ``ValueError`` for none."""
    data = np.frombuffer(coded[: count * _LONGEST], np.uint8)
    ends = np.flatnonzero(data < 0x80)[:count]
    starts = np.concatenate(([0], ends[:-1] + 1))[: len(ends)]
    lengths = ends - starts + 1
    if len(ends) and lengths.max() > _LONGEST:
        raise ValueError("a gap is too long")
    if len(ends) < count:
        raise EOFError(f"{count} gaps are wanted where {len(ends)} are left")
    values = np.zeros(count, np.int64)
    for place in range(_LONGEST):
        (here,) = np.nonzero(lengths > place)
        values[here] |= (data[starts[here] + place].astype(np.int64) & 0x7F) << 7 * place
    return values, int(lengths.sum())


def _check_pair(i: int, j: int, source: ExpertCodes, target: ExpertCodes) -> None:
    def sizes(codes: ExpertCodes) -> dict[tuple[int, int], tuple[tuple[int, ...], int]]:
        return {key: (trits.shape, scales.size) for key, (trits, scales) in codes.items()}

    if i == j or sizes(source) != sizes(target):
        raise ConfigError(
            f"No delta leads from expert {i} to {j}, which are not two experts of equal sizes; give two of one model."
        )


def _change(reader: Reader, key: tuple[int, int], codes: MatrixCodes, forward: bool) -> MatrixCodes:
    """The other side of one matrix, from the record that comes next."""
    trits, scales = codes
    *place, rows, columns, changes = reader.fields(_RECORD)
    if (*place, rows, columns) != (*key, *trits.shape) or changes > trits.size:
        raise ValueError(f"its matrix of layer {place[0]} has other sizes than the expert's")
    gaps, used = decode_leb128(reader.rest, changes)
    reader.take(used)
    positions = np.cumsum(gaps + 1) - 1
    if changes and positions[-1] >= trits.size:
        raise ValueError("it changes weights that are not there")
    packed = np.frombuffer(reader.take(-(-changes // 8)), np.uint8)
    step = np.unpackbits(packed, count=changes, bitorder="little").astype(np.int8) + np.int8(1)
    old_scales, new_scales = reader.scales(scales.size), reader.scales(scales.size)
    other = trits.flatten()
    coded = other[positions] + np.int8(1)
    other[positions] = (coded + step if forward else coded - step) % 3 - 1
    return other.reshape(trits.shape), new_scales if forward else old_scales
