"""Five trits to a byte: every trit comes back, and bytes that mean nothing are refused."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from phasegate.core.model.trits import pack, packed_size, unpack


def test_a_byte_is_a_number_to_base_three_whose_first_trit_counts_least() -> None:
    assert list(pack(np.array([1, -1, -1, -1, -1], np.int8))) == [2]
    assert list(pack(np.array([0, 1, -1, 0, 1], np.int8))) == [1 + 2 * 3 + 0 * 9 + 1 * 27 + 2 * 81]


def test_the_largest_byte_is_242() -> None:
    assert list(pack(np.ones(5, np.int8))) == [242]
    assert list(pack(-np.ones(5, np.int8))) == [0]


@pytest.mark.parametrize(("count", "size"), [(0, 0), (1, 1), (5, 1), (6, 2), (1000, 200)])
def test_five_trits_take_a_byte(count: int, size: int) -> None:
    assert packed_size(count) == size
    assert len(pack(np.zeros(count, np.int8))) == size


@given(st.lists(st.integers(-1, 1), max_size=40))
def test_trits_come_back(trits: list[int]) -> None:
    packed = pack(np.array(trits, np.int8))
    assert unpack(packed, len(trits)).tolist() == trits


@given(st.binary(min_size=1, max_size=9))
def test_every_byte_up_to_242_has_a_meaning_of_its_own(data: bytes) -> None:
    data = bytes(min(byte, 242) for byte in data)
    assert pack(unpack(data, 5 * len(data))) == data


def test_rows_are_packed_one_behind_the_other() -> None:
    trits = np.arange(12, dtype=np.int8).reshape(3, 4) % np.int8(3) - np.int8(1)
    assert pack(trits) == pack(trits.ravel())
    assert pack(trits.T) == pack(trits.T.copy().ravel())


@pytest.mark.parametrize("byte", [243, 255])
def test_a_byte_above_242_is_an_error(byte: int) -> None:
    with pytest.raises(ValueError, match=f"no five trits give the byte {byte}"):
        unpack(bytes([0, byte]), 10)


def test_more_trits_in_the_last_byte_than_announced_are_an_error() -> None:
    assert unpack(bytes([8]), 2).tolist() == [1, 1]
    with pytest.raises(ValueError, match="more trits than there are"):
        unpack(bytes([9]), 2)


@pytest.mark.parametrize("count", [5, 11])
def test_another_number_of_bytes_is_an_error(count: int) -> None:
    with pytest.raises(ValueError, match="bytes, not 2"):
        unpack(bytes(2), count)


@pytest.mark.parametrize("trits", [np.array([2], np.int8), np.array([-2], np.int8), np.array([1])])
def test_other_numbers_are_an_error(trits: np.ndarray) -> None:
    with pytest.raises(ValueError, match="trits are int8"):
        pack(trits)
