"""``.trit``: an expert comes back bit for bit, and no damaged file gives one."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from phasegate.core.model.trit_file import (
    DOWN,
    GATE_UP,
    bits_per_weight,
    digest,
    read_expert,
    serialise,
    write_expert,
)
from phasegate.registry.errors import StoreError

Codes = dict[tuple[int, int], tuple[Any, Any]]


def draw(seed: int = 0, layers: int = 2, rows: int = 6, columns: int = 7) -> Codes:
    """Codes with a scale per row in ``gate_up`` and one scale in ``down``."""
    random = np.random.default_rng(seed)
    shapes = {GATE_UP: (rows, columns, rows), DOWN: (columns, rows // 2, 1)}
    return {
        (layer, kind): (
            random.integers(-1, 2, (height, width), dtype=np.int8),
            random.random(scales).astype(np.float16),
        )
        for layer in range(layers)
        for kind, (height, width, scales) in shapes.items()
    }


@pytest.fixture
def path(tmp_path: Path) -> Path:
    write_expert(tmp_path / "expert_003.trit", 3, draw())
    return tmp_path / "expert_003.trit"


def test_an_expert_comes_back_bit_for_bit(same_codes: Callable[..., bool], path: Path) -> None:
    number, codes = read_expert(path)
    assert number == 3
    assert same_codes(codes, draw())


def test_scales_that_are_no_numbers_come_back_too(same_codes: Callable[..., bool], tmp_path: Path) -> None:
    scales = np.array([0x7E01, 0x8000, 0x0001], np.uint16).view(np.float16)  # NaN with a payload, -0, subnormal
    codes: Codes = {(0, DOWN): (np.zeros((3, 2), np.int8), scales)}
    write_expert(tmp_path / "x.trit", 0, codes)
    assert same_codes(read_expert(tmp_path / "x.trit")[1], codes)


def test_the_file_is_laid_out_as_documented(tmp_path: Path) -> None:
    codes: Codes = {(7, DOWN): (np.array([[1, -1, 0]], np.int8), np.array([0.5], np.float16))}
    write_expert(tmp_path / "x.trit", 258, codes)
    # 0.5 in fp16 is 0x3800; the trits 1, -1, 0 are the digits 2, 0, 1 = 2 + 9
    body = b"TRT1" + bytes([1, 0, 2, 1, 1, 0, 0, 0]) + bytes([7, 0, 1, 1, 0, 0, 0, 3, 0, 0, 0, 1, 0, 0, 0])
    body += bytes([0x00, 0x38, 11])
    assert (tmp_path / "x.trit").read_bytes() == body + struct.pack("<I", zlib.crc32(body))


def test_the_order_of_codes_does_not_matter(tmp_path: Path) -> None:
    codes = draw()
    assert serialise(dict(reversed(codes.items()))) == serialise(codes)


def test_the_digest_sees_every_trit_and_every_scale() -> None:
    codes = draw()
    for part in (0, 1):
        changed = draw()
        array = changed[1, DOWN][part]
        array[-1] = -array[-1] if array[-1].any() else 1
        assert digest(changed) != digest(codes)
    assert digest(draw()) == digest(codes)


def test_bits_of_trits_and_of_scales_are_told_apart() -> None:
    codes: Codes = {(0, GATE_UP): (np.zeros((10, 40), np.int8), np.ones(10, np.float16))}
    assert bits_per_weight(codes) == (1.6, 0.4)  # 80 bytes and 10 scales of 16 bits for 400 weights


def test_a_flip_of_any_byte_is_an_error(path: Path) -> None:
    data = path.read_bytes()
    for place in range(len(data)):
        path.write_bytes(data[:place] + bytes([data[place] ^ 0x41]) + data[place + 1 :])
        with pytest.raises(StoreError, match=r"expert_003\.trit"):
            read_expert(path)


def test_every_cut_is_an_error(path: Path) -> None:
    data = path.read_bytes()
    for length in range(4, len(data)):
        path.write_bytes(data[:length])
        with pytest.raises(StoreError, match=r"expert_003\.trit' ends too early.*copy it again"):
            read_expert(path)


def test_another_kind_of_file_is_an_error(path: Path) -> None:
    for content in (b"", b"TRT", b"TRD1" + bytes(40)):
        path.write_bytes(content)
        with pytest.raises(StoreError, match=r"is no \.trit file; give"):
            read_expert(path)


def test_a_missing_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"none\.trit' cannot be read"):
        read_expert(tmp_path / "none.trit")


def test_a_later_version_is_an_error_that_names_both(reseal: Callable[[bytes], bytes], path: Path) -> None:
    data = path.read_bytes()
    path.write_bytes(reseal(data[:4] + struct.pack("<H", 9) + data[6:]))
    with pytest.raises(StoreError, match=r"version 9, and this phasegate reads version 1; update it"):
        read_expert(path)


def test_a_wrong_checksum_is_an_error(path: Path) -> None:
    data = path.read_bytes()
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(StoreError, match=r"its checksum does not match"):
        read_expert(path)


def test_an_impossible_byte_is_an_error_even_under_a_right_checksum(
    reseal: Callable[[bytes], bytes], path: Path
) -> None:
    data = path.read_bytes()
    path.write_bytes(reseal(data[:-5] + b"\xff" + data[-4:]))
    with pytest.raises(StoreError, match=r"no five trits give the byte 255"):
        read_expert(path)


@pytest.mark.parametrize(
    ("place", "layout", "value", "sentence"),
    [
        (8, "<I", 5, "sizes that do not fit"),  # one matrix more than there are
        (8, "<I", 3, "3 different matrices were announced"),
        (14, "<B", 2, "kind 2"),
        (15, "<I", 2**31, "scales for 2147483648 rows"),
        (19, "<I", 2**31, "sizes that do not fit"),  # columns
        (23, "<I", 4, "4 scales for 6 rows"),
    ],
)
def test_sizes_that_do_not_fit_are_an_error_even_under_a_right_checksum(
    reseal: Callable[[bytes], bytes], path: Path, place: int, layout: str, value: int, sentence: str
) -> None:
    data = bytearray(path.read_bytes())
    struct.pack_into(layout, data, place, value)
    path.write_bytes(reseal(bytes(data)))
    with pytest.raises(StoreError, match=sentence):
        read_expert(path)


def test_codes_that_are_no_matrix_are_refused() -> None:
    with pytest.raises(ValueError, match="no matrix has"):
        serialise({(0, 0): (np.zeros((2, 2), np.int8), np.ones(3, np.float16))})
    with pytest.raises(ValueError, match="in float32"):
        serialise({(0, 0): (np.zeros((2, 2), np.int8), np.ones(2, np.float32))})


def test_what_cannot_be_written_leaves_nothing(tmp_path: Path, path: Path) -> None:
    (tmp_path / "taken").mkdir()
    with pytest.raises(StoreError, match=r"cannot write taken in .*directory"):
        write_expert(tmp_path / "taken", 3, draw())
    with pytest.raises(StoreError, match=r"cannot write below in .*directory"):
        write_expert(path / "below", 3, draw())
    assert sorted(found.name for found in tmp_path.iterdir()) == ["expert_003.trit", "taken"]
