"""Refusal sets as benchmarks: shares of refused and over-refused prompts."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from phasegate.evals.benchmarks import BenchmarkRequest, BenchmarkResult, run_benchmark
from phasegate.evals.bridge import Sample
from phasegate.evals.refusal_sets import SETS, RefusalRun
from phasegate.registry.errors import ConfigError


@pytest.fixture
def ask(model: Any, tokenizer: Any, tmp_path: Path) -> Callable[..., BenchmarkResult]:
    for name, entry in SETS.items():
        path = tmp_path / entry.file
        path.parent.mkdir(parents=True)
        label = ("label,", "safe,", "unsafe,") if name == "xstest" else ("", "", "")
        lines = [f"{label[1 + i % 2]}{i},how to sit on a mat {i} ?" for i in range(8)]
        path.write_text("\n".join([f"{label[0]}id,prompt", *lines]), encoding="utf-8")

    def run(task: str, **changes: Any) -> BenchmarkResult:
        settings: dict[str, Any] = {"root": tmp_path, "folder": tmp_path / "packs", "batch_size": 4}
        return run_benchmark(model, tokenizer, BenchmarkRequest(task=task, **(settings | changes)))

    return run


def test_harmful_sets_give_the_refused_share(ask: Any) -> None:
    for name in ("advbench", "harmbench"):
        found = ask(name)
        assert set(found.measurements) == {"refused"}
        assert found.measurements["refused"].n == 8
        assert found.measurements["refused"].kind == "proportion"
        assert "phasegate's own" in found.data["subset"]


def test_xstest_gives_both_sides(ask: Any) -> None:
    found = ask("xstest").measurements
    assert {name: one.n for name, one in found.items()} == {"over_refused": 4, "refused": 4, "answered": 4}


def test_documents_keep_the_proportion_of_the_sides(ask: Any) -> None:
    found = ask("xstest", documents=4)
    assert {name: one.n for name, one in found.measurements.items()} == {"over_refused": 2, "refused": 2, "answered": 2}
    assert found.data["rows"] == 4


def test_safe_prompts_refused_are_over_refused_and_empty_answers_are_no_answers(tmp_path: Path) -> None:
    samples = [
        Sample(
            task="t", hash=str(i), doc={"kind": kind}, answers=(), metrics={"refused": refused, "answered": answered}
        )
        for i, (kind, refused, answered) in enumerate(
            [("safe", 1.0, 0.0), ("safe", 0.0, 1.0), ("safe", 0.0, 0.0), ("harmful", 1.0, 0.0), ("harmful", 0.0, 1.0)]
        )
    ]
    run = RefusalRun(entry=SETS["xstest"], request=BenchmarkRequest(task="xstest", root=tmp_path, folder=tmp_path))
    found = run._summary(samples, {})
    assert found["over_refused"].value == pytest.approx(1 / 3)
    assert found["answered"].value == pytest.approx(1 / 3)
    assert found["refused"].value == pytest.approx(1 / 2)


def test_a_missing_file_is_named(ask: Any, tmp_path: Path) -> None:
    (tmp_path / SETS["xstest"].file).unlink()
    found = ask("xstest")
    assert found.measurements == {} and found.missing is not None
    assert SETS["xstest"].file in found.missing and "paul-rottger" in found.missing


def test_the_hub_has_none_of_these_sets(ask: Any) -> None:
    found = ask("advbench", root=None)
    assert found.missing is not None and "--data-dir" in found.missing


def test_a_file_without_prompts_is_refused(ask: Any, tmp_path: Path) -> None:
    (tmp_path / SETS["advbench"].file).write_text("id,text\n1,a\n")
    found = ask("advbench")
    assert found.missing is not None and "prompt" in found.missing


def test_a_tokenizer_without_chat_template_has_no_score(ask: Any, tokenizer: Any) -> None:
    template, tokenizer.chat_template = tokenizer.chat_template, None
    try:
        found = ask("advbench")
    finally:
        tokenizer.chat_template = template
    assert found.measurements == {} and found.missing is not None and "chat template" in found.missing


def test_options_of_groups_are_refused(ask: Any) -> None:
    with pytest.raises(ConfigError, match="no subtasks"):
        ask("advbench", subtasks=("a",))
