"""The order of rows."""

from __future__ import annotations

import numpy as np
import pytest
from phasegate.core.data.mixture import Slot
from phasegate.core.data.order import order_rows
from phasegate.registry.errors import DataError

MEMBERS = {"a": np.arange(0, 10), "b": np.arange(10, 14)}
A, B = Slot(domain="a"), Slot(domain="b")


def test_no_row_comes_twice_before_all_have_come_once() -> None:
    order = order_rows([[A] * 5] * 4, MEMBERS, ("key",))
    assert sorted(order.rows[:10]) == list(range(10))
    assert sorted(order.rows[10:]) == list(range(10))
    assert list(order.rows[:10]) != list(order.rows[10:])
    assert order.epochs == {"a": 2.0}


def test_epochs_count_parts_of_a_pass() -> None:
    assert order_rows([[B] * 3, [B] * 3], MEMBERS, ("key",)).epochs == {"b": 1.5}


def test_the_rows_of_a_step_do_not_depend_on_how_many_follow() -> None:
    steps = [[A, A, B]] * 12
    short, long = order_rows(steps[:5], MEMBERS, ("key",)), order_rows(steps, MEMBERS, ("key",))
    assert short.rows.tolist() == long.rows[:15].tolist()


def test_an_extension_goes_on_where_the_first_run_ended() -> None:
    steps = [[A, A, B]] * 12
    whole, rest = order_rows(steps, MEMBERS, ("key",)), order_rows(steps, MEMBERS, ("key",), first=9)
    assert rest.rows.tolist() == whole.rows[27:].tolist()
    assert rest.shares == pytest.approx({"a": 2 / 3, "b": 1 / 3, "replay": 0.0})


def test_another_seed_gives_another_order() -> None:
    first, second = (order_rows([[A] * 10], MEMBERS, ("key", seed)).rows.tolist() for seed in (0, 1))
    assert sorted(first) == sorted(second)
    assert first != second


def test_replay_has_an_order_of_its_own() -> None:
    old = Slot(domain="a", replay=True)
    order = order_rows([[A, old]] * 10, MEMBERS, ("key",))
    alone = order_rows([[A]] * 10, MEMBERS, ("key",))
    assert order.shares == {"a": 1.0, "replay": 0.5}
    pairs = order.rows.reshape(10, 2)
    assert all(new in pair for new, pair in zip(alone.rows, pairs, strict=True))


def test_rows_of_a_step_are_shuffled_among_its_micro_batches() -> None:
    order = order_rows([[A] * 8 + [B] * 8] * 20, {"a": np.arange(200), "b": np.arange(200, 400)}, ("key",))
    first_half = (order.rows.reshape(20, 16)[:, :8] < 200).sum()
    assert 50 < first_half < 110  # 80 expected; without shuffling 160


def test_a_domain_without_a_row_is_an_error() -> None:
    with pytest.raises(DataError, match="'c' has a share of the batches but not one full row"):
        order_rows([[Slot(domain="c")]], MEMBERS, ("key",))
