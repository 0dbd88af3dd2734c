"""A sealed record vouches for itself and for the files beside it."""

from __future__ import annotations

from pathlib import Path

import pytest
from phasegate.registry.errors import StoreError
from phasegate.registry.sealed import seal, unseal


@pytest.fixture
def record(tmp_path: Path) -> Path:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "weights").write_bytes(b"weights")
    seal(tmp_path / "DONE.json", {"loss": 0.1, "worst": float("nan")}, [tmp_path / "model" / "weights"])
    return tmp_path / "DONE.json"


def opened(record: Path) -> str:
    with pytest.raises(StoreError) as caught:
        unseal(record, "the step 'sft'", "move it away")
    text = str(caught.value)
    assert "the step 'sft'" in text and "\n" not in text
    return text


def test_facts_come_back_as_they_were(record: Path) -> None:
    facts = unseal(record, "the step", "move it away")
    assert facts["loss"] == 0.1 and facts["worst"] != facts["worst"]


@pytest.mark.parametrize(
    ("content", "told"),
    [(b"weight", "has 6 bytes instead of 7"), (b"weightS", "has other content than was written"), (None, "is missing")],
)
def test_a_file_that_is_not_as_it_was_is_named(record: Path, content: bytes | None, told: str) -> None:
    path = record.parent / "model" / "weights"
    path.unlink() if content is None else path.write_bytes(content)
    assert f"{path} {told}; move it away" in opened(record)


@pytest.mark.parametrize("change", [lambda text: text.replace("0.1", "0.3"), lambda text: text[:-9], lambda text: "[]"])
def test_a_record_that_was_changed_is_named(record: Path, change: object) -> None:
    record.write_text(change(record.read_text()))  # type: ignore[operator]
    assert f"{record} has other content than was written" in opened(record)


def test_a_record_comes_after_its_files(record: Path) -> None:
    assert record.stat().st_mtime_ns >= (record.parent / "model" / "weights").stat().st_mtime_ns
