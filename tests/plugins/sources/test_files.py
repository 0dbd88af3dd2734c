"""Local files."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from phasegate.core.data.source import SourceContext
from phasegate.plugins.sources.files import Files, FilesConfig
from phasegate.plugins.sources.readers import cut_text
from phasegate.registry.errors import DataError

Context = Callable[..., SourceContext]


def files(context: SourceContext, *paths: str, **options: Any) -> Files:
    return Files(FilesConfig(**{"domain": "general", "paths": paths, **options}), context=context)


def texts(source: Files) -> list[str]:
    return list(source.load("text", "train")["text"])


def write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)


LINES = b'{"text": "one"}\n\n{"text": "two"}\n'


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("a.jsonl", LINES),
        ("a.jsonl.gz", LINES),
        ("a.json", b'[{"text": "one"}, {"text": "two"}]'),
        ("a.csv", b"id,text\n1,one\n2,two\n"),
        ("a.csv.gz", b'id,text\n1,"one"\n2,two\n'),
        ("a.txt", b"one\n\n\ntwo\n"),
        ("a.txt.gz", b"one\n \ntwo"),
    ],
)
def test_every_kind_of_file_is_read_plain_and_gzipped(context: Context, tmp_path: Path, name: str, data: bytes) -> None:
    write(tmp_path / name, data)
    assert texts(files(context(), name, document_characters=1)) == ["one", "two"]


@pytest.mark.parametrize("name", ["a.parquet", "a.parquet.gz"])
def test_parquet_is_read_plain_and_gzipped(context: Context, tmp_path: Path, name: str) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.table({"text": ["one", "two"], "n": [1, 2]}), tmp_path / "raw")
    write(tmp_path / name, (tmp_path / "raw").read_bytes())
    assert texts(files(context(), name, fields={"text": "{n} {text}"})) == ["1 one", "2 two"]


def test_globs_are_relative_to_the_root_and_sorted(context: Context, tmp_path: Path) -> None:
    for name in ("b/2.txt", "a/1.txt", "a/deep/3.txt"):
        write(tmp_path / name, name.encode())
    assert texts(files(context(), "*/*.txt")) == ["a/1.txt", "b/2.txt"]
    assert texts(files(context(), "a/**/*.txt")) == ["a/1.txt", "a/deep/3.txt"]
    assert texts(files(context(), str(tmp_path / "b" / "*.txt"))) == ["b/2.txt"]


def test_text_is_cut_into_files_lines_or_runs_of_paragraphs() -> None:
    text = "a\nb\n\nc\n\nd"
    assert list(cut_text(text, "file", 0)) == [text]
    assert list(cut_text(text, "lines", 0)) == ["a", "b", "c", "d"]
    assert list(cut_text(text, "paragraphs", 1)) == ["a\nb", "c", "d"]
    assert list(cut_text(text, "paragraphs", 4)) == ["a\nb\n\nc", "d"]


def test_the_standard_library_is_code_under_its_own_licence(context: Context) -> None:
    source = Files(FilesConfig(stdlib=True, limit=40), context=context(0.2))
    assert source.domains() == ("code",)
    assert source.report()["licence"] == "PSF-2.0"
    assert any("def " in text for text in texts(source))
    names = {path.name for path in source.files()}
    assert "dataclasses.py" in names
    assert not any({"site-packages", "test", "tests"} & set(path.parts) for path in source.files()[:2000])


def test_the_fingerprint_follows_content_and_options(context: Context, tmp_path: Path) -> None:
    write(tmp_path / "a.txt", b"one")
    first = files(context(), "a.txt").fingerprint()
    assert files(context(), "a.txt").fingerprint() == first
    assert files(context(), "a.txt", documents="lines").fingerprint() != first
    write(tmp_path / "a.txt", b"two")
    assert files(context(), "a.txt").fingerprint() != first


def test_an_empty_split_keeps_its_columns(context: Context, tmp_path: Path) -> None:
    write(tmp_path / "a.txt", b"one")
    rows = files(context(), "a.txt").load("text", "heldout")
    assert (len(rows), rows.column_names) == (0, ["text", "domain"])


def test_a_source_gives_only_its_own_view(context: Context, tmp_path: Path) -> None:
    write(tmp_path / "a.txt", b"one")
    with pytest.raises(DataError, match="gives the view 'text', not 'chat'"):
        files(context(), "a.txt").load("chat", "train")


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("a.txt", b" \n", r"a\.txt, but the file is empty"),
        ("a.txt", b"\xff\xfe\xff", "as UTF-8"),
        ("a.jsonl", b'{"text": "a"}\n{"text"\n', r"a\.jsonl:2: not JSON"),
        ("a.jsonl", b"[1]", r"a\.jsonl:1: not a JSON object"),
        ("a.json", b"[1]", "no JSON objects"),
        ("a.csv", b"id,text\n1\n", "not as many cells"),
        ("a.parquet", b"nothing", "as parquet"),
        ("a.docx", b"x", "cannot tell what"),
    ],
)
def test_an_unreadable_file_is_named(context: Context, tmp_path: Path, name: str, data: bytes, message: str) -> None:
    write(tmp_path / name, data)
    with pytest.raises(DataError, match=message) as caught:
        texts(files(context(), name))
    assert "'mine'" in str(caught.value)


def test_a_damaged_gzip_is_named(context: Context, tmp_path: Path) -> None:
    write(tmp_path / "a.jsonl.gz", LINES * 50)
    (tmp_path / "a.jsonl.gz").write_bytes((tmp_path / "a.jsonl.gz").read_bytes()[:30])
    with pytest.raises(DataError, match="cannot unpack"):
        texts(files(context(), "a.jsonl.gz"))


@pytest.mark.parametrize("pattern", ["missing.txt", "*.none"])
def test_a_pattern_without_a_match_names_the_root(context: Context, tmp_path: Path, pattern: str) -> None:
    with pytest.raises(DataError, match=r"finds no file .* set data\.root"):
        files(context(), pattern).fingerprint()


@pytest.mark.parametrize("options", [{"paths": ()}, {"paths": ("a",), "stdlib": True}])
def test_paths_and_the_standard_library_exclude_each_other(context: Context, options: dict[str, Any]) -> None:
    with pytest.raises(DataError, match="needs either paths or stdlib"):
        Files(FilesConfig(domain="code", **options), context=context())


def test_records_keep_their_order_and_nested_values(context: Context, tmp_path: Path) -> None:
    records = [{"code": str(n), "data": {"n": n}} for n in range(3)]
    write(tmp_path / "a.jsonl", "\n".join(map(json.dumps, records)).encode())
    assert texts(files(context(), "a.jsonl", fields={"text": "{code} {data}"})) == [
        '0 {"n": 0}',
        '1 {"n": 1}',
        '2 {"n": 2}',
    ]
