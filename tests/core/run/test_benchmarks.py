"""Benchmark results in the store: kept whole, found by what decides them, compared document by document."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from phasegate.core.run.benchmarks import (
    BenchmarkRecord,
    against_chance,
    benchmarks_of,
    differences,
    estimate,
    file_of,
    key_of,
    read_record,
    write_record,
)
from phasegate.core.run.fingerprint import recipe_of
from phasegate.core.run.store import Store
from phasegate.evals.measurement import Measurement, missing
from phasegate.registry.errors import StoreError


def measurement(values: list[float], metric: str = "acc", **changes: Any) -> Measurement:
    documents = {f"d{number}": value for number, value in enumerate(values)}
    settings: dict[str, Any] = {"kind": "proportion", "chance": 0.5, "per_document": documents}
    settings |= {"value": sum(values) / len(values), "n": len(values)}
    return Measurement(metric=metric, **(settings | changes))


def record(values: list[float] | None = None, **changes: Any) -> BenchmarkRecord:
    settings: dict[str, Any] = {
        "key": "0" * 32,
        "task": "blimp",
        "model": {"name": "one", "digest": "v1:a"},
        "config": "c",
        "data": {"file": "blimp.jsonl", "sha256": "d", "rows": 4},
        "versions": {"torch": "2"},
        "batch_size": 8,
        "dtype": "float32",
        "documents": None,
        "seed": 0,
        "max_length": None,
        "created": "2026-01-01T00:00:00+00:00",
        "measurements": {} if values is None else {"acc": measurement(values)},
    }
    return BenchmarkRecord(**(settings | changes))


def test_a_result_comes_back_as_it_was_written(tmp_path: Path) -> None:
    store = Store(tmp_path)
    broken = {"acc": measurement([1.0, 0.0]), "nll": missing("nll", "weights are not finite")}
    written = record(measurements=broken)
    write_record(store, written)
    found = read_record(store, written.key)
    assert found is not None and found.cached
    assert found.measurements["acc"] == broken["acc"]
    assert math.isnan(found.measurements["nll"].value) and found.measurements["nll"].missing
    assert replace(found, cached=False, measurements={}) == replace(written, measurements={})


def test_a_result_that_is_not_there_is_none(tmp_path: Path) -> None:
    assert read_record(Store(tmp_path), "0" * 32) is None


@pytest.mark.parametrize("part", ["acc", '"value": 0.5', "blimp"])
def test_a_damaged_result_is_named_and_stays(tmp_path: Path, part: str) -> None:
    store = Store(tmp_path)
    path = write_record(store, record([1.0, 0.0]))
    damaged = path.read_text().replace(part, part.replace("5", "6").replace("c", "k").replace("m", "n"))
    path.write_text(damaged)
    with pytest.raises(StoreError, match=str(path)):
        read_record(store, "0" * 32)
    with pytest.raises(StoreError, match=str(path)):
        benchmarks_of(store, "v1:a")
    assert path.read_text() == damaged


def test_a_result_that_was_cut_short_is_named(tmp_path: Path) -> None:
    store = Store(tmp_path)
    path = write_record(store, record([1.0, 0.0]))
    path.write_text(path.read_text()[:100])
    with pytest.raises(StoreError, match=str(path)):
        read_record(store, "0" * 32)


def test_a_result_under_the_name_of_another_is_named(tmp_path: Path) -> None:
    store = Store(tmp_path)
    path = write_record(store, record([1.0, 0.0]))
    path.rename(path.with_name("1" * 32 + ".json"))
    with pytest.raises(StoreError, match="renamed"):
        read_record(store, "1" * 32)


def test_a_result_of_a_later_format_is_refused(tmp_path: Path) -> None:
    store = Store(tmp_path)
    path = write_record(store, record([1.0]))
    path.write_text(json.dumps(json.loads(path.read_text()) | {"format": 9}))
    with pytest.raises(StoreError, match="has format 9"):
        read_record(store, "0" * 32)


def test_results_of_one_model_are_found_by_its_digest(tmp_path: Path) -> None:
    store = Store(tmp_path)
    write_record(store, record([1.0], key="1" * 32, task="boolq"))
    write_record(store, record([1.0], key="2" * 32, task="arc_easy"))
    write_record(store, record([1.0], key="3" * 32, model={"name": "one", "digest": "v1:b"}))
    assert [found.task for found in benchmarks_of(store, "v1:a")] == ["arc_easy", "boolq"]
    assert benchmarks_of(Store(tmp_path / "none"), "v1:a") == []


def test_the_folder_of_results_is_no_stage(tmp_path: Path) -> None:
    store = Store(tmp_path)
    write_record(store, record([1.0]))
    assert store.list() == ()
    with store.draft(store.begin(recipe_of({"phase": "benchmarks"}))) as draft:
        stage = store.commit(draft, {})
    assert store.list() == (stage,) and read_record(store, "0" * 32) is not None


def test_no_half_written_file_is_left_or_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(tmp_path)

    def fail(self: Path, target: Path) -> Path:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(StoreError, match="disk is full"):
        write_record(store, record([1.0]))
    assert list(file_of(store, "0").parent.iterdir()) == []


def test_of_two_results_under_one_key_the_later_stays(tmp_path: Path) -> None:
    store = Store(tmp_path)
    for time in ("2026-01-02", "2026-01-01"):
        path = write_record(store, record([1.0, 0.0], created=time))
    found = read_record(store, "0" * 32)
    assert found is not None and found.created == "2026-01-01"
    assert list(path.parent.iterdir()) == [path]


def test_anything_that_decides_a_result_changes_its_key() -> None:
    identity = {"model": "a", "documents": None, "seed": 0}
    keys = {key_of(identity), key_of(identity | {"documents": 0}), key_of(identity | {"seed": 1})}
    assert len(keys) == 3 and all(len(key) == 32 for key in keys)


def test_the_interval_is_two_sided_at_95_percent() -> None:
    # Newcombe 1998, Stat. Med. 17:857, table I: 81 of 263 has Wilson's interval 0.2553 to 0.3662.
    found = estimate(measurement([1.0] * 81 + [0.0] * 182))
    assert found.low == pytest.approx(0.2553, abs=5e-5)
    assert found.high == pytest.approx(0.3662, abs=5e-5)


@pytest.mark.parametrize(
    ("right", "words"), [(81, "below chance"), (131, "not resolved"), (182, "above chance")], ids=str
)
def test_chance_is_resolved_or_not(right: int, words: str) -> None:
    assert against_chance(measurement([1.0] * right + [0.0] * (263 - right))) == words


def test_without_a_chance_level_there_is_no_verdict() -> None:
    assert against_chance(measurement([1.0, 0.0], chance=None)) == ""


def test_the_bounds_of_a_perplexity_lie_evenly_around_its_logarithm() -> None:
    # One-sided bounds of 95 % are exp(2 -+ 1.6449 * 0.5); those of 97.5 % are exp(2 -+ 1.9600 * 0.5).
    given = (math.exp(2 - 0.822427), math.exp(2 + 0.822427))
    found = estimate(measurement([1.0], "perplexity", value=math.exp(2), kind="mean", interval=given))
    assert math.log(found.low) == pytest.approx(1.020018)
    assert math.log(found.high) == pytest.approx(2.979982)


def test_models_are_compared_document_by_document() -> None:
    # 1 gain and 9 losses of 20: McNemar's exact p is 2 * (1 + 10) / 2**10.
    one = record([1.0] + [0.0] * 9 + [1.0] * 10)
    other = record([0.0] + [1.0] * 9 + [1.0] * 10, model={"name": "other", "digest": "v1:b"})
    (found,) = differences(one, other)
    assert (found.up, found.down, found.n) == (1, 9, 20)
    assert found.p_value == pytest.approx(22 / 1024)
    assert found.value == pytest.approx(0.55)
    assert found.other == pytest.approx(0.95)
    assert found.difference == pytest.approx(-0.4)
    assert found.high < 0 and found.words == "lower"
    assert [change.words for change in differences(other, one)] == ["higher"]


def test_equal_models_are_not_resolved() -> None:
    (found,) = differences(record([1.0, 0.0, 1.0]), record([1.0, 0.0, 1.0]))
    assert (found.difference, found.p_value, found.words) == (0.0, 1.0, "not resolved")
    assert found.low < 0 < found.high


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"seed": 1}, "seed"),
        ({"batch_size": 4}, "batch_size"),
        ({"data": {"sha256": "e"}}, "data"),
        ({"config": "x"}, "config"),
    ],
    ids=str,
)
def test_results_under_other_settings_are_not_compared(changes: dict[str, Any], word: str) -> None:
    (found,) = differences(record([1.0]), record([1.0], **changes))
    assert found.words == f"not evaluated: the two were measured with another {word}"


def test_models_in_another_precision_are_compared() -> None:
    assert differences(record([1.0]), record([1.0], dtype="bfloat16"))[0].reason is None


def test_what_was_not_evaluated_is_not_compared() -> None:
    gone = record(missing="its data is not there")
    assert differences(record([1.0]), gone)[0].words == "not evaluated: one: its data is not there"
    broken = record(measurements={"acc": missing("acc", "2 of 3 documents gave no finite value")})
    assert "no finite value" in differences(broken, record([1.0]))[0].words
    assert "no finite value" in differences(record([1.0]), broken)[0].words
