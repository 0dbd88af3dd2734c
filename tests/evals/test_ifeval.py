"""IFEval: what it needs is asked before anything is generated, and its language detector is seeded."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest
from phasegate.evals import stock_needs
from phasegate.evals.benchmarks import BenchmarkRequest, run_benchmark
from phasegate.evals.stock_needs import lacking, steady_languages
from phasegate.evals.stock_tasks import STOCK

_SPEC = importlib.util.spec_from_file_location("phasegate_stock_copies", Path(__file__).parent / "stock_copies.py")
assert _SPEC is not None and _SPEC.loader is not None
copies = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(copies)


@pytest.fixture
def splitter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An untrained sentence splitter where nltk looks for it: it splits at every full stop."""
    nltk = pytest.importorskip("nltk")
    folder = tmp_path / "nltk_data" / "tokenizers" / "punkt_tab" / "english"
    folder.mkdir(parents=True)
    for name in ("abbrev_types.txt", "collocations.tab", "ortho_context.tab", "sent_starters.txt"):
        (folder / name).write_text("")
    monkeypatch.setattr(nltk.data, "path", [str(tmp_path / "nltk_data")])
    return folder


def test_packages_that_are_not_there_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stock_needs, "find_spec", lambda name: None if name != "nltk" else object())
    found = lacking("ifeval", STOCK["ifeval"], False)
    assert found is not None and "immutabledict, langdetect" in found and "phasegate[ifeval]" in found


def test_a_sentence_splitter_that_is_not_there_is_named_before_anything_is_generated(
    tokenizer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for package in ("immutabledict", "langdetect"):
        pytest.importorskip(package)
    nltk = pytest.importorskip("nltk")
    monkeypatch.setattr(nltk.data, "path", [])
    copies.write_copies(tmp_path, ["ifeval"])
    request = BenchmarkRequest(task="ifeval", root=tmp_path, folder=tmp_path / "packs")
    found = run_benchmark(None, tokenizer, request)  # no model is looked at
    assert found.measurements == {}
    assert found.missing is not None and "punkt_tab" in found.missing


def test_ifeval_runs_where_all_is_there(model: Any, tokenizer: Any, tmp_path: Path, splitter: Path) -> None:
    for package in ("immutabledict", "langdetect"):
        pytest.importorskip(package)
    copies.write_copies(tmp_path, ["ifeval"])
    model.generation_config.eos_token_id = list(range(320))
    found = run_benchmark(
        model, tokenizer, BenchmarkRequest(task="ifeval", root=tmp_path, folder=tmp_path / "packs", documents=3)
    )
    assert found.missing is None
    assert set(found.measurements) == set(STOCK["ifeval"].metrics)
    assert all(one.n == 3 and 0 <= one.value <= 1 for one in found.measurements.values())


def test_detected_languages_are_the_same_each_time_and_the_seed_is_given_back() -> None:
    langdetect = pytest.importorskip("langdetect")
    before = langdetect.DetectorFactory.seed
    found = set()
    for _ in range(10):
        with steady_languages(STOCK["ifeval"]):
            found.add(langdetect.detect("ok fine merci"))
    assert len(found) == 1
    assert langdetect.DetectorFactory.seed == before
