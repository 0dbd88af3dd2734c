"""The page on benchmarks says what is so: its snippets run, its table is complete, its options are the command's."""

from __future__ import annotations

import gzip
import json
import os
import re
from pathlib import Path
from typing import Any

os.environ["HF_HUB_OFFLINE"] = "1"

import pytest
import torch
from phasegate.core.cli.app import SUBCOMMANDS
from phasegate.core.model.tokenizer import train_tokenizer
from phasegate.evals.benchmarks import benchmark, benchmark_names
from transformers import LlamaConfig, LlamaForCausalLM
from transformers.utils import logging
from typer import Typer
from typer.main import get_command

logging.disable_progress_bar()

PAGE = (Path(__file__).parents[3] / "docs" / "benchmarks.md").read_text(encoding="utf-8")


def write_models(root: Path) -> tuple[Path, Path]:
    torch.set_num_threads(1)
    tokenizer = train_tokenizer(["the cat sleeps on the mat ."] * 9, 270)
    for seed, name in enumerate(("one", "two")):
        torch.manual_seed(seed)
        config = LlamaConfig(
            vocab_size=270, hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2
        )
        LlamaForCausalLM(config).save_pretrained(root / name)
        tokenizer.save_pretrained(root / name)
    return root / "one", root / "two"


def write_data(root: Path) -> Path:
    """24 pairs of one paradigm of BLiMP."""
    rows = [
        {
            "UID": "wh_island",
            "pairID": str(number),
            "field": "syntax",
            "linguistics_term": "island_effects",
            "sentence_good": f"the cat {number} sleeps on the mat .",
            "sentence_bad": f"the cat {number} sleep on the mat .",
            "simple_LM_method": True,
            "one_prefix_method": False,
            "two_prefix_method": False,
            "lexically_identical": False,
        }
        for number in range(24)
    ]
    file = root / "evals" / "blimp" / "blimp_part.jsonl.gz"
    file.parent.mkdir(parents=True)
    file.write_bytes(gzip.compress("".join(json.dumps(row) + "\n" for row in rows).encode()))
    return root


def test_the_snippets_run_in_order(tmp_path: Path) -> None:
    one, two = write_models(tmp_path)
    space: dict[str, Any] = {"DATA": write_data(tmp_path / "data"), "ONE": one, "TWO": two}
    snippets = re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL)
    for snippet in snippets:
        exec(compile(snippet, "docs/benchmarks.md", "exec"), space)
    assert len(snippets) == 3 and "change" in space


def test_every_benchmark_stands_in_the_table() -> None:
    said = {
        name
        for line in PAGE.splitlines()
        if line.startswith("| `")
        for name in re.findall(r"`(\w+)`", line.split("|")[1])
    }
    assert said == set(benchmark_names())


@pytest.mark.parametrize("name", benchmark_names())
def test_the_metrics_of_a_benchmark_stand_beside_it(name: str) -> None:
    (line,) = [line for line in PAGE.splitlines() if line.startswith("| `") and f"`{name}`" in line.split("|")[1]]
    assert all(
        f"`{metric}`" in line or ("_loose_" in metric and "`loose`" in line) for metric in benchmark(name).metrics
    )


def test_every_option_of_the_page_is_one_of_the_command() -> None:
    app = Typer()
    app.command()(SUBCOMMANDS["eval"].load())
    parameters = {option for parameter in get_command(app).params for option in parameter.opts}
    said = set(re.findall(r"`(--[a-z-]+)", PAGE))
    assert said and said <= parameters
