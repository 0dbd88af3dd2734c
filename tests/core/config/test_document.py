"""Reading YAML as plain data."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from phasegate import ConfigError
from phasegate.core.config.document import parse_document, read_document


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("4e-3", 0.004),
        ("1E5", 100_000.0),
        (".5", 0.5),
        ("-7", -7),
        ("010", 10),
        ("20_000", 20_000),
        ("1_2", "1_2"),
        ("true", True),
        ("no", "no"),
        ("on", "on"),
        ("2026-01-01", "2026-01-01"),
        ("1:30", "1:30"),
        ("0x10", "0x10"),
        (".inf", ".inf"),
        (".nan", ".nan"),
        ("~", None),
        ("", None),
        ("'4'", "4"),
        ("[1, a, null]", [1, "a", None]),
    ],
)
def test_a_scalar_means_what_it_looks_like(text: str, value: Any) -> None:
    assert parse_document(f"key: {text}", "x").value == {"key": value}
    assert type(parse_document(f"key: {text}", "x").value["key"]) is type(value)


def test_keys_are_text_whatever_they_look_like() -> None:
    assert parse_document("{1: a, no: b, true: c, null: d}", "x").value == {
        "1": "a",
        "no": "b",
        "true": "c",
        "null": "d",
    }


def test_every_key_and_item_knows_its_line() -> None:
    text = "# comment\na:\n  b: 1\n\n  c:\n    - x\n    - y: 2\nd: {e: 3,\n  f: 4}\n"
    assert dict(parse_document(text, "x").lines) == {
        ("a",): 2,
        ("a", "b"): 3,
        ("a", "c"): 5,
        ("a", "c", "0"): 6,
        ("a", "c", "1"): 7,
        ("a", "c", "1", "y"): 7,
        ("d",): 8,
        ("d", "e"): 8,
        ("d", "f"): 9,
    }


def test_an_alias_repeats_a_value_without_sharing_it() -> None:
    value = parse_document("a: &here {x: [1]}\nb: *here\n", "x").value
    assert value["b"] == {"x": [1]}
    value["b"]["x"].append(2)
    assert value["a"] == {"x": [1]}


def test_a_byte_order_mark_is_no_mistake() -> None:
    assert parse_document("\ufeffname: x\n".encode(), "x").value == {"name": "x"}


def test_windows_line_ends_count_as_lines() -> None:
    assert parse_document(b"a: 1\r\nb: 2\r\n", "x").lines[("b",)] == 2


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"gone\.yaml: there is no such file\."):
        read_document(tmp_path / "gone.yaml")


def test_a_folder_is_no_experiment_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="this is a folder"):
        read_document(tmp_path)
