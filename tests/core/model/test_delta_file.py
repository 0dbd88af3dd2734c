"""``.trd``: one file leads from each of two experts to the other, bit for bit, or not at all."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from phasegate.core.model.delta_file import (
    apply_delta,
    decode_leb128,
    encode_leb128,
    information_bound,
    write_delta,
)
from phasegate.core.model.trit_file import DOWN, GATE_UP, read_expert
from phasegate.registry.errors import ConfigError, StoreError

Codes = dict[tuple[int, int], tuple[Any, Any]]


def draw(seed: int = 0, rows: int = 40, columns: int = 50, layers: tuple[int, ...] = (1, 3)) -> Codes:
    random = np.random.default_rng(seed)
    shapes = {GATE_UP: (2 * rows, columns, 2 * rows), DOWN: (columns, rows, 1)}
    return {
        (layer, kind): (
            random.integers(-1, 2, (height, width), dtype=np.int8),
            random.random(scales).astype(np.float16),
        )
        for layer in layers
        for kind, (height, width, scales) in shapes.items()
    }


def change(codes: Codes, density: float, seed: int = 1) -> Codes:
    """Codes with other scales that differ in exactly this share of the trits of every matrix."""
    random = np.random.default_rng(seed)
    changed: Codes = {}
    for key, (trits, scales) in codes.items():
        flat = trits.ravel().copy()
        places = random.choice(flat.size, round(density * flat.size), replace=False)
        flat[places] = (flat[places] + 1 + random.integers(1, 3, len(places))) % 3 - 1
        changed[key] = (flat.reshape(trits.shape), random.random(scales.size).astype(np.float16))
    return changed


@pytest.fixture
def small(tmp_path: Path) -> tuple[Path, Codes, Codes]:
    source = draw(rows=4, columns=100, layers=(0,))
    target = change(source, 0.04)
    report = write_delta(tmp_path, 3, 11, source, target)
    assert not report.full
    return tmp_path / report.file, source, target


@pytest.mark.parametrize(("density", "bits", "smaller"), [(0.1, 0.569, 2.8), (0.05, 0.336, 4.8), (0.02, 0.161, 9.9)])
def test_the_bound_is_that_of_the_specification(density: float, bits: float, smaller: float) -> None:
    assert information_bound(density) == pytest.approx(bits, abs=5e-4)
    assert 1.6 / information_bound(density) == pytest.approx(smaller, abs=0.05)


def test_the_bound_of_no_change_is_nothing_and_of_change_everywhere_one_bit() -> None:
    assert (information_bound(0.0), information_bound(1.0)) == (0.0, 1.0)


@pytest.mark.parametrize("density", [0.0, 0.02, 0.1])
def test_one_file_leads_both_ways(same_codes: Callable[..., bool], density: float, tmp_path: Path) -> None:
    source = draw()
    target = change(source, density)
    report = write_delta(tmp_path, 2, 104, source, target)
    assert (report.file, report.full) == ("delta_002_104.trd", False)
    path = tmp_path / report.file
    assert same_codes(apply_delta(path, source, expert=2), target)
    assert same_codes(apply_delta(path, target, expert=104), source)


def test_experts_that_differ_nowhere_lead_to_each_other(same_codes: Callable[..., bool], tmp_path: Path) -> None:
    codes = draw()
    report = write_delta(tmp_path, 0, 1, codes, codes)
    assert (report.changes, report.density, report.measured, report.bound) == (0, 0.0, 0.0, 0.0)
    assert same_codes(apply_delta(tmp_path / report.file, codes, expert=1), codes)


def test_experts_that_differ_widely_are_written_whole_and_the_report_says_so(
    same_codes: Callable[..., bool], tmp_path: Path
) -> None:
    source = draw()
    target = change(source, 0.6)
    report = write_delta(tmp_path, 2, 104, source, target)
    assert report.full
    assert [path.name for path in tmp_path.iterdir()] == [report.file] == ["expert_104.trit"]
    number, codes = read_expert(tmp_path / report.file)
    assert number == 104
    assert same_codes(codes, target)
    assert report.bytes == report.full_bytes == (tmp_path / report.file).stat().st_size
    assert report.measured > 1.6


def test_the_report_counts_what_was_written(tmp_path: Path) -> None:
    source = draw(rows=50, columns=100)  # 2 layers of 100 x 100 and 100 x 50
    report = write_delta(tmp_path, 0, 1, source, change(source, 0.1))
    assert (report.weights, report.changes, report.density) == (30_000, 3_000, 0.1)
    assert report.bytes == (tmp_path / report.file).stat().st_size
    # the header; in each of 2 layers 2000 and 1000 bytes of trits, two records and 101 scales; the checksum
    assert report.full_bytes == 12 + 2 * (2000 + 1000 + 2 * 15 + 2 * 101) + 4
    # a gap below 128 takes a byte, and hardly one in 10^6 is above it; a change takes a bit more
    assert report.measured == pytest.approx(0.1 * 9, rel=0.002)
    assert report.bound < report.measured


def test_the_file_is_laid_out_as_documented(tmp_path: Path) -> None:
    source: Codes = {(5, DOWN): (np.zeros((2, 500), np.int8), np.array([1.0], np.float16))}
    target: Codes = {(5, DOWN): (np.zeros((2, 500), np.int8), np.array([2.0], np.float16))}
    target[5, DOWN][0][0, 3] = 1  # 1 -> 2 on 0..2: one step
    target[5, DOWN][0][1, 499] = -1  # 1 -> 0: two steps
    report = write_delta(tmp_path, 1, 2, source, target)
    data = (tmp_path / report.file).read_bytes()
    assert data[:12] == b"TRD1" + bytes([1, 0, 1, 0, 2, 0, 1, 0])
    assert data[76:91] == bytes([5, 0, 1, 2, 0, 0, 0, 0xF4, 1, 0, 0, 2, 0, 0, 0])
    # gaps 3 and 999 - 4 = 995 = 0x63 + 7 * 128; the bits 0 and 1; 1.0 and 2.0 in fp16
    assert data[91:-4] == bytes([3, 0xE3, 7, 0b10, 0x00, 0x3C, 0x00, 0x40])
    assert data[-4:] == struct.pack("<I", zlib.crc32(data[:-4]))
    assert report.coded_bits == 8 * 4


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_any_two_experts_lead_to_each_other(
    same_codes: Callable[..., bool], tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    columns = data.draw(st.integers(500, 1000))
    seed, density = data.draw(st.integers(0, 2**32)), data.draw(st.floats(0, 0.1))
    random = np.random.default_rng(seed)
    source = {
        (layer, kind): (random.integers(-1, 2, (3, columns), dtype=np.int8), random.random(3).astype(np.float16))
        for layer, kind in data.draw(st.sets(st.tuples(st.integers(0, 9), st.integers(0, 1)), min_size=1, max_size=3))
    }
    target = change(source, density, seed + 1)
    folder = tmp_path_factory.mktemp("pair")
    report = write_delta(folder, 0, 1, source, target)
    if report.full:
        assert same_codes(read_expert(folder / report.file)[1], target)
    else:
        assert same_codes(apply_delta(folder / report.file, source, expert=0), target)
        assert same_codes(apply_delta(folder / report.file, target, expert=1), source)


@given(st.lists(st.integers(0, 2**35 - 1), max_size=30), st.binary(max_size=6))
def test_gaps_come_back_whatever_follows(values: list[int], behind: bytes) -> None:
    coded = encode_leb128(np.array(values, np.int64))
    found, used = decode_leb128(coded + behind, len(values))
    assert (found.tolist(), used) == (values, len(coded))


def test_gaps_are_leb128() -> None:
    # 624485 = 0xE5 0x8E 0x26 is the example of the DWARF specification's successors
    assert encode_leb128(np.array([624485, 127, 128])) == bytes([0xE5, 0x8E, 0x26, 0x7F, 0x80, 0x01])


def test_gaps_that_end_too_early_or_are_too_long_are_errors() -> None:
    with pytest.raises(EOFError):
        decode_leb128(bytes([1, 0x80]), 2)
    with pytest.raises(ValueError, match="too long"):
        decode_leb128(bytes([0x80] * 5 + [1]), 2)


def test_a_flip_of_any_byte_is_an_error(small: tuple[Path, Codes, Codes]) -> None:
    path, source, _ = small
    data = path.read_bytes()
    for place in range(len(data)):
        path.write_bytes(data[:place] + bytes([data[place] ^ 0x41]) + data[place + 1 :])
        with pytest.raises(StoreError, match=r"delta_003_011\.trd"):
            apply_delta(path, source, expert=3)


def test_every_cut_is_an_error(small: tuple[Path, Codes, Codes]) -> None:
    path, source, _ = small
    data = path.read_bytes()
    for length in range(4, len(data)):
        path.write_bytes(data[:length])
        with pytest.raises(StoreError, match=r"was cut off or changed"):
            apply_delta(path, source, expert=3)


def test_another_kind_of_file_is_an_error(small: tuple[Path, Codes, Codes]) -> None:
    path, source, _ = small
    path.write_bytes(b"TRT1" + bytes(100))
    with pytest.raises(StoreError, match="is no delta file; give"):
        apply_delta(path, source, expert=3)
    with pytest.raises(StoreError, match="cannot be read"):
        apply_delta(path.with_name("none.trd"), source, expert=3)


def test_a_later_version_is_an_error_that_names_both(
    reseal: Callable[[bytes], bytes], small: tuple[Path, Codes, Codes]
) -> None:
    path, source, _ = small
    data = path.read_bytes()
    path.write_bytes(reseal(data[:4] + struct.pack("<H", 9) + data[6:]))
    with pytest.raises(StoreError, match="version 9, and this phasegate reads version 1"):
        apply_delta(path, source, expert=3)


def test_experts_that_were_trained_since_are_an_error(small: tuple[Path, Codes, Codes]) -> None:
    path, source, _ = small
    for key, part in (((0, GATE_UP), 0), ((0, DOWN), 1)):
        other = {name: (trits.copy(), scales.copy()) for name, (trits, scales) in source.items()}
        flat = other[key][part].ravel()
        flat[0] = 0 if flat[0] else 1
        with pytest.raises(StoreError, match=r"from expert 3 to 11 and back.*write the deltas of this model again"):
            apply_delta(path, other, expert=3)


@pytest.mark.parametrize("expert", [4, 11])
def test_the_codes_of_another_expert_are_an_error(small: tuple[Path, Codes, Codes], expert: int) -> None:
    path, source, _ = small
    with pytest.raises(StoreError, match=f"what is given as expert {expert} is neither"):
        apply_delta(path, source, expert=expert)


@pytest.mark.parametrize(
    ("place", "layout", "value"),
    [(10, "<H", 2), (44, "<B", 7), (76, "<H", 1), (78, "<B", 1), (83, "<I", 24), (87, "<I", 2**31), (91, "<B", 0x7F)],
)
def test_contents_that_do_not_fit_are_an_error_even_under_a_right_checksum(
    reseal: Callable[[bytes], bytes], small: tuple[Path, Codes, Codes], place: int, layout: str, value: int
) -> None:
    path, source, _ = small
    data = bytearray(path.read_bytes())
    struct.pack_into(layout, data, place, value)
    path.write_bytes(reseal(bytes(data)))
    with pytest.raises(StoreError, match="does not hold what a delta holds"):
        apply_delta(path, source, expert=3)


def test_applying_leaves_what_it_was_given(same_codes: Callable[..., bool], small: tuple[Path, Codes, Codes]) -> None:
    path, source, _ = small
    before = {key: (trits.copy(), scales.copy()) for key, (trits, scales) in source.items()}
    apply_delta(path, source, expert=3)
    assert same_codes(source, before)


def test_experts_of_other_sizes_have_no_delta(tmp_path: Path) -> None:
    codes = draw()
    for other in (draw(rows=41), draw(layers=(1,)), {key: (t, np.resize(s, len(t))) for key, (t, s) in codes.items()}):
        with pytest.raises(ConfigError, match="No delta leads from expert 0 to 1"):
            write_delta(tmp_path, 0, 1, codes, other)
    with pytest.raises(ConfigError, match="from expert 1 to 1"):
        write_delta(tmp_path, 1, 1, codes, codes)
    assert list(tmp_path.iterdir()) == []


def test_a_million_weights_take_about_a_byte_per_change(same_codes: Callable[..., bool], tmp_path: Path) -> None:
    source = draw(rows=400, columns=600)  # 1.44 million
    target = change(source, 0.05)
    report = write_delta(tmp_path, 0, 1, source, target)
    assert same_codes(apply_delta(tmp_path / report.file, source, expert=0), target)
    assert report.bytes < report.full_bytes / 3
