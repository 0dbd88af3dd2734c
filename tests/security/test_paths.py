"""Names that come from data lead nowhere: they name a row's group, and never a file elsewhere."""

from __future__ import annotations

import gzip
import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from phasegate.evals.stock import stock_config, stock_digests, stock_folder, write_stock
from phasegate.evals.stock_tasks import STOCK
from phasegate.registry.errors import DataError

Refused = Callable[..., str]


@pytest.fixture
def leading_out(tmp_path: Path, marker: Path) -> str:
    """The name of a member that leads to a task file beside the data, whose function would leave a mark."""
    (tmp_path / "own.py").write_text(f"def rows(**options):\n    open({str(marker)!r}, 'w')\n    return []\n")
    (tmp_path / "evil.yaml").write_text(
        "task: blimp_evil\ncustom_dataset: !function own.rows\noutput_type: multiple_choice\n"
    )
    member = os.path.relpath(tmp_path / "evil", stock_folder() / "blimp")
    assert (stock_folder() / "blimp" / f"{member}.yaml").is_file()
    return member


def data(folder: Path, member: str) -> Path:
    row = {"UID": member, "pairID": "0", "sentence_good": "the cat .", "sentence_bad": "cat the .", "field": "syntax"}
    row |= {"linguistics_term": "x", "simple_LM_method": True, "one_prefix_method": False, "two_prefix_method": False}
    path = folder / "evals" / "blimp" / "blimp_part.jsonl.gz"
    path.parent.mkdir(parents=True)
    path.write_bytes(gzip.compress(json.dumps(row | {"lexically_identical": False}).encode()))
    return path


def test_a_benchmarks_data_cannot_name_a_task_file_of_its_own(leading_out: str, tmp_path: Path, marker: Path) -> None:
    path = data(tmp_path, leading_out)
    before = sorted(tmp_path.iterdir())
    with pytest.raises(DataError, match="lm-eval has no task file"):
        write_stock(tmp_path / "work", "blimp", path)
    assert sorted(one for one in tmp_path.iterdir() if one.name != "work") == before and not marker.exists()


def test_the_command_does_not_follow_it_either(leading_out: str, refused: Refused, llama: Path, marker: Path) -> None:
    data(llama.parent, leading_out)
    refused("eval", llama, "--tasks", "blimp", "--data-dir", ".")
    assert not marker.exists()


@pytest.mark.parametrize("member", ["/etc/passwd", "..", ".", "", "a/b", "a\\b"])
def test_a_member_is_a_plain_name(member: str) -> None:
    for look in (stock_config, lambda task, name: stock_digests(task, [name])):
        with pytest.raises(DataError, match="lm-eval has no task file"):
            look(STOCK["blimp"], member)
