"""Data sets of the datasets library, without the network."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import pytest
from phasegate.core.data.source import SourceContext
from phasegate.plugins.sources.hub import Hub, HubConfig
from phasegate.registry.errors import DataError

Context = Callable[..., SourceContext]


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No network, and a cache that is thrown away."""
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A data set of ten records in a local folder."""
    made = tmp_path / "set"
    made.mkdir()
    lines = [json.dumps({"q": f"question {n}", "a": f"answer {n}"}) for n in range(10)]
    (made / "train.jsonl").write_text("\n".join(lines))
    return made


def hub(context: SourceContext, **options: Any) -> Hub:
    return Hub(
        HubConfig(**{"path": "set", "domain": "general", "fields": {"text": "{q}: {a}"}, **options}), context=context
    )


def test_a_local_folder_is_read_like_a_data_set_of_the_hub(context: Context, folder: Path) -> None:
    source = hub(context())
    assert source.load("text", "train")["text"][:2] == ["question 0: answer 0", "question 1: answer 1"]
    assert source.domains() == ("general",)
    assert source.report() == {"path": "set", "records": 10, "skipped": {}}


def test_streaming_reads_no_more_than_the_limit(context: Context, folder: Path) -> None:
    source = hub(context(), streaming=True, limit=3)
    assert len(source.load("text", "train")) == 3
    assert source.report()["records"] == 3


def test_streaming_without_a_limit_is_refused(context: Context) -> None:
    with pytest.raises(DataError, match="needs a limit"):
        hub(context(), streaming=True)


def test_records_become_chats_as_in_files(context: Context, folder: Path) -> None:
    rows = hub(context(), view="chat", fields={"prompt": "{q}", "completion": "{a}"}).load("chat", "train")
    assert rows[0]["prompt"] == [{"role": "user", "content": "question 0"}]


def test_the_fingerprint_follows_a_folders_content(context: Context, folder: Path) -> None:
    first = hub(context()).fingerprint()
    assert hub(context()).fingerprint() == first
    (folder / "train.jsonl").write_text(json.dumps({"q": "x", "a": "y"}))
    assert hub(context()).fingerprint() != first


def test_an_unknown_data_set_says_what_to_do(context: Context) -> None:
    with pytest.raises(DataError, match=r"'mine' cannot load the data set 'nobody/nothing'.*be online"):
        hub(context(), path="nobody/nothing").load("text", "train")


def test_an_unknown_split_names_the_data_set(context: Context, folder: Path) -> None:
    with pytest.raises(DataError, match="cannot load the data set 'set'"):
        hub(context(), split="tests").load("text", "train")


def test_a_data_set_with_code_is_never_run(context: Context, tmp_path: Path) -> None:
    made = tmp_path / "scripted"
    made.mkdir()
    (made / "scripted.py").write_text("raise SystemExit('this ran')")
    with pytest.raises(DataError, match="cannot load the data set 'scripted'"):
        hub(context(), path="scripted").load("text", "train")


def test_a_missing_field_is_not_taken_for_a_loading_error(context: Context, folder: Path) -> None:
    with pytest.raises(DataError, match="without the field 'text'"):
        hub(context(), fields={}).load("text", "train")


def test_records_become_questions_and_refusals_as_in_files(context: Context, folder: Path) -> None:
    asked = hub(context(), view="unknown", fields={"question": "{q}?", "answer": "{a}"})
    assert asked.load("unknown", "train")["question"][0] == "question 0?"
    measured = hub(context(), view="refusal", kind="harmful", fields={"prompt": "{q}"}, held_out=1.0)
    assert measured.load("refusal", "heldout")["completion"][0] == []
    assert measured.evaluation_only and not asked.evaluation_only
