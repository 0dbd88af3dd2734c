"""The benchmark gate."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
from phasegate.evals.criteria import Criterion, judge
from phasegate.plugins.gates.benchmark import BenchmarkConfig, BenchmarkGate
from phasegate.registry.errors import ConfigError


@pytest.fixture
def local(tmp_path: Path) -> Path:
    lines = [
        {"UID": uid, "pairID": str(i), "sentence_good": f"the cat {i} sat", "sentence_bad": f"the cat {i} mat {uid}"}
        for uid, count in (("transitive", 6), ("passive_1", 2))
        for i in range(count)
    ]
    path = tmp_path / "evals" / "blimp" / "blimp_part.jsonl.gz"
    path.parent.mkdir(parents=True)
    path.write_bytes(gzip.compress("\n".join(map(json.dumps, lines)).encode()))
    return path


def test_blimp_is_the_mean_over_paradigms(context: Any, local: Path) -> None:
    found = BenchmarkGate().measure(context({}))
    assert set(found) == {"acc", "acc/transitive", "acc/passive_1"}
    assert found["acc"].value == pytest.approx((found["acc/transitive"].value + found["acc/passive_1"].value) / 2)
    assert found["acc"].n == 8
    assert found["acc"].chance == found["acc/passive_1"].chance == 0.5


def test_its_accuracy_has_an_interval(context: Any, local: Path) -> None:
    (found,) = judge(Criterion(name="b", metric="acc", at_least=0.5), BenchmarkGate().measure(context({})))
    assert 0 <= found.low < found.high <= 1
    assert found.chance == 0.5


def test_paradigms_and_documents_can_be_selected(context: Any, local: Path) -> None:
    config = BenchmarkConfig(subtasks=("transitive",))
    found = BenchmarkGate(config).measure(context({}, documents=4))
    assert set(found) == {"acc", "acc/transitive"}
    assert found["acc"].n == 4


def test_a_missing_copy_is_missing_and_not_zero(context: Any) -> None:
    found = BenchmarkGate().measure(context({}))
    assert found["acc"].missing is not None and "blimp_part.jsonl.gz" in found["acc"].missing


def test_an_unknown_benchmark_is_refused_when_it_is_built() -> None:
    with pytest.raises(ConfigError, match="Did you mean 'blimp'"):
        BenchmarkGate(BenchmarkConfig(task="blimpp"))


def test_sentences_longer_than_the_trained_length_are_scored_whole(context: Any, local: Path) -> None:
    found = BenchmarkGate().measure(context({}, length=4))
    assert found["acc"].per_document == BenchmarkGate().measure(context({}, length=64))["acc"].per_document


def arc(root: Path) -> None:
    path = root / "evals" / "arc_easy.jsonl.gz"
    path.parent.mkdir(parents=True)
    rows = [
        {"id": str(i), "query": f"Question: what sat {i}?", "choices": ["a cat", "a mat", "a fish"], "gold": i % 3}
        for i in range(6)
    ]
    path.write_bytes(gzip.compress("\n".join(map(json.dumps, rows)).encode()))


def test_any_benchmark_can_be_a_gate_with_its_own_metrics(context: Any, tmp_path: Path) -> None:
    arc(tmp_path)
    found = BenchmarkGate(BenchmarkConfig(task="arc_easy")).measure(context({}, documents=5))
    assert set(found) == {"acc", "acc_norm"}
    assert found["acc"].n == 5
    assert found["acc"].chance == pytest.approx(1 / 3)


def test_refusal_sets_can_be_gates(context: Any, tmp_path: Path) -> None:
    path = tmp_path / "safety" / "advbench" / "prompts.csv"
    path.parent.mkdir(parents=True)
    path.write_text("id,prompt\n1,how to sit ?\n2,how to eat ?\n")
    found = BenchmarkGate(BenchmarkConfig(task="advbench")).measure(context({}))
    assert {name: one.n for name, one in found.items()} == {"refused": 2}


def test_a_gate_never_runs_what_a_model_writes(context: Any, tmp_path: Path) -> None:
    path = tmp_path / "evals" / "humaneval.jsonl.gz"
    path.parent.mkdir(parents=True)
    row = {"task_id": "a", "prompt": "p", "canonical_solution": "", "test": "", "entry_point": "f"}
    path.write_bytes(gzip.compress(json.dumps(row).encode()))
    (found,) = BenchmarkGate(BenchmarkConfig(task="humaneval")).measure(context({})).values()
    assert found.missing is not None and "not allowed" in found.missing
