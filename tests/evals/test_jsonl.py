"""JSONL files: every line an object, or an error."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest
from phasegate.evals.processing import read_jsonl


def test_lines_are_objects_and_blank_ones_are_left_out(tmp_path: Path) -> None:
    text = '{"a": "x\\u2028y"}\n\n  {"a": "ä\u2028ö", "b": [1, 2]}\r\n'.encode()
    (tmp_path / "plain.jsonl").write_bytes(b"\xef\xbb\xbf" + text)
    (tmp_path / "packed.jsonl.gz").write_bytes(gzip.compress(text))
    for name in ("plain.jsonl", "packed.jsonl.gz"):
        assert read_jsonl(tmp_path / name) == [{"a": "x\u2028y"}, {"a": "ä\u2028ö", "b": [1, 2]}]


@pytest.mark.parametrize("text", ['{"a": 1\n', '{"a": 1\n"b": 2}\n', '{"a": 1}, {"a": 2}\n', '{"a": 1},\n'])
def test_a_line_that_is_no_object_by_itself_is_an_error(tmp_path: Path, text: str) -> None:
    (tmp_path / "rows.jsonl").write_text(text)
    with pytest.raises(ValueError):
        read_jsonl(tmp_path / "rows.jsonl")


def test_a_file_without_lines_has_no_rows(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text("\n")
    assert read_jsonl(tmp_path / "rows.jsonl") == []
