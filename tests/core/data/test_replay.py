"""Replay beside a step: without state, and the same for any number of processes."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch
from phasegate.core.data.packing import pack_text
from phasegate.core.data.replay import Pool, ReplayStream

PACKED = pack_text([(n, [[10 * n + m] * 3 for m in range(8)]) for n in range(3)], 4, 0)
POOLS = (Pool(name="text", packed=PACKED, shares=np.array([0.5, 0.25, 0.25])),)


def stream(rows: int = 8, accumulate: int = 1, seed: int = 0) -> ReplayStream:
    return ReplayStream(POOLS, rows=rows, accumulate=accumulate, key=("test", seed))


def test_a_batch_depends_on_nothing_but_its_arguments() -> None:
    one, other = stream(), stream()
    for step in (5, 0, 3):
        other.batch(step, 0, 0, 1)
    torch.testing.assert_close(one.batch(7, 0, 0, 1)["input_ids"], other.batch(7, 0, 0, 1)["input_ids"])


def test_steps_and_seeds_differ() -> None:
    first = stream().batch(0, 0, 0, 1)["input_ids"]
    assert not torch.equal(first, stream().batch(1, 0, 0, 1)["input_ids"])
    assert not torch.equal(first, stream(seed=1).batch(0, 0, 0, 1)["input_ids"])


def test_micro_batches_of_all_processes_make_up_the_step() -> None:
    whole = stream(rows=8).batch(2, 0, 0, 1)["input_ids"]
    parts = [stream(rows=8, accumulate=2).batch(2, micro, rank, 2)["input_ids"] for micro in (0, 1) for rank in (0, 1)]
    assert [len(part) for part in parts] == [2, 2, 2, 2]
    torch.testing.assert_close(torch.cat(parts), whole)


def test_rows_that_do_not_divide_differ_by_one_and_lose_none() -> None:
    parts = [stream(rows=3, accumulate=2).batch(2, micro, rank, 2) for micro in (0, 1) for rank in (0, 1)]
    assert sorted(len(part["input_ids"]) for part in parts) == [0, 1, 1, 1]
    assert all(part["labels"].shape[1] == 4 for part in parts)
    torch.testing.assert_close(torch.cat([p["domain"] for p in parts]), stream(rows=3).batch(2, 0, 0, 1)["domain"])


def test_every_step_has_each_domain_in_its_share() -> None:
    for step in range(20):
        assert Counter(stream().batch(step, 0, 0, 1)["domain"].tolist()) == {0: 4, 1: 2, 2: 2}


def test_rows_carry_positions_and_labels_but_no_mask_that_would_hide_the_borders() -> None:
    batch = stream().batch(0, 0, 0, 1)
    assert set(batch) == {"input_ids", "position_ids", "labels", "domain"}
    assert all(batch[name].dtype == torch.int64 for name in batch)
    torch.testing.assert_close(batch["labels"], batch["input_ids"])
    assert batch["position_ids"].max() < 4


def test_a_domain_without_rows_leaves_its_share_to_the_others() -> None:
    short = pack_text([(0, [[1] * 9]), (2, [[2] * 9])], 4, 0)
    pools = (Pool(name="text", packed=short, shares=np.array([0.5, 0.25, 0.25])),)
    made = ReplayStream(pools, rows=6, accumulate=1, key=("test",))
    assert made.shares() == pytest.approx({"text/0": 2 / 3, "text/2": 1 / 3})
    assert Counter(made.batch(0, 0, 0, 1)["domain"].tolist()) == {0: 4, 2: 2}
