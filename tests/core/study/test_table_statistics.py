"""Differences between curricula: what is noise, and what may be called resolved."""

from __future__ import annotations

import math

import pytest
from phasegate.core.study.statistics import difference, paired_variance, resolved


def test_the_interval_over_seeds_is_students() -> None:
    found = difference([1.0, 2.0, 3.0])
    half = 4.302652729911275 * 1.0 / math.sqrt(3)  # t(0.975, 2) times the standard error
    assert (found.value, found.n) == (2.0, 3)
    assert found.low == pytest.approx(2.0 - half)
    assert found.high == pytest.approx(2.0 + half)
    assert found.p == pytest.approx(0.0741799, abs=1e-6)  # t = 3.4641 with 2 degrees of freedom


def test_documents_that_all_seeds_share_widen_the_interval() -> None:
    found = difference([0.1, 0.1, 0.1], document_variance=0.04)
    assert found.low is not None and found.high is not None
    assert found.high - found.value == pytest.approx(1.959964 * 0.2, abs=1e-6)
    assert found.p == pytest.approx(0.617075, abs=1e-5)  # z = 0.5, two-sided


def test_a_p_value_is_where_the_interval_touches_zero() -> None:
    found = difference([0.9, 1.0, 1.1], document_variance=0.05)
    assert found.p is not None
    touching = difference([0.9, 1.0, 1.1], document_variance=0.05, confidence=1 - found.p)
    assert touching.low == pytest.approx(0.0, abs=1e-6)


def test_one_seed_says_nothing_about_its_spread() -> None:
    found = difference([0.5])
    assert (found.low, found.high, found.p) == (None, None, None)
    assert found.words == "one seed leaves the spread unknown"


def test_a_difference_that_is_the_same_in_every_seed_and_document_is_certain_unless_it_is_none() -> None:
    assert difference([0.5, 0.5, 0.5]).p == 0.0
    assert difference([0.0, 0.0, 0.0]).p == 1.0


def test_holm_steps_down_from_the_smallest_p() -> None:
    """p of 0.01, 0.02, 0.04 and 0.9 against 0.05/4, 0.05/3, ...: only the first holds."""
    import dataclasses

    plain = difference([1.0, 2.0, 3.0])
    table = {name: dataclasses.replace(plain, p=p) for name, p in (("a", 0.01), ("b", 0.02), ("c", 0.04), ("d", 0.9))}
    marked = resolved(table)
    assert [name for name, one in marked.items() if one.resolved] == ["a"]
    assert marked["b"].words == "not resolved"


def test_the_variance_of_a_paired_difference_uses_documents_that_all_measurements_share() -> None:
    new = [{"a": 1.0, "b": 0.0, "c": 1.0, "x": 9.0}, {"a": 1.0, "b": 1.0, "c": 1.0}]
    old = [{"a": 0.0, "b": 0.0, "c": 1.0}, {"a": 0.0, "b": 0.0, "c": 1.0}]
    # Differences averaged over seeds: a 1, b 0.5, c 0; variance 0.25, over 3 documents.
    assert paired_variance(new, old) == pytest.approx(0.25 / 3)


def test_one_shared_document_has_no_variance() -> None:
    assert paired_variance([{"a": 1.0}], [{"a": 0.0}]) is None


def test_an_interval_without_zero_that_does_not_hold_among_others_is_said_so() -> None:
    import dataclasses

    plain = difference([1.0, 1.1, 0.9])
    assert plain.low is not None and plain.low > 0
    marked = resolved({"a": plain, **{name: dataclasses.replace(plain, p=0.9) for name in "bcdefghijklmnopqrstuvwxyz"}})
    assert marked["a"].words == "by itself only"
