"""Stock families through the same phases, and two processes as one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

Platform = Callable[..., int]

SIZES = "hidden_size: 32, intermediate_size: 16, num_hidden_layers: 2, num_attention_heads: 2, num_key_value_heads: 2"
FAMILIES = {
    "mixtral": f"{{family: mixtral, overrides: {{{SIZES}, num_local_experts: 6, num_experts_per_tok: 2}}}}",
    "olmoe": f"{{family: olmoe, overrides: {{{SIZES}, num_experts: 6, num_experts_per_tok: 2}}}}",
    "qwen3_moe": (
        f"{{family: qwen3_moe, overrides: {{{SIZES}, moe_intermediate_size: 16, num_local_experts: 6,"
        " num_experts_per_tok: 2, tie_word_embeddings: true}}"
    ),
}


@pytest.mark.parametrize("family", FAMILIES)
def test_a_stock_family_goes_through_all_three_phases(
    family: str, tiny: Path, platform: Platform, tmp_path: Path
) -> None:
    text = tiny.read_text(encoding="utf-8")
    start = text.index("model: {")
    stop = text.index("tokenizer:")
    options = FAMILIES[family].removeprefix("{").removesuffix("}")
    tiny.write_text(text[:start] + f"model: {{use: stock, {options}}}\n" + text[stop:], encoding="utf-8")
    assert platform("train", str(tiny)) == 0
    config = next((tmp_path / "store").glob("alignment-*/checkpoint/config.json"))
    assert json.loads(config.read_text())["model_type"] == family


def losses(store: Path, phase: str, step: str) -> list[dict[str, float]]:
    (metrics,) = store.glob(f"{phase}-*/metrics.jsonl")
    rows = [json.loads(line) for line in metrics.read_text().splitlines()]
    return [row for row in rows if row["at"] == step and "loss" in row]


@pytest.mark.slow
def test_two_processes_train_all_phases_to_the_losses_of_one(tiny: Path, tmp_path: Path) -> None:
    command = Path(sys.executable).with_name("platform")
    torchrun = Path(sys.executable).with_name("torchrun")
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    two = [str(torchrun), "--standalone", "--nproc_per_node", "2", "--no-python", str(command)]
    # trl averages the likelihood term of DPO over the tokens of each process, so it alone depends on the split.
    exact = "--set=phases.alignment.steps.dpo.options={beta: 0.1, nll: 0.0}"
    for store, start in (("one", [str(command)]), ("two", two)):
        done = subprocess.run(
            [*start, "train", str(tiny), "--store", store, exact],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    for phase, step in (
        ("foundation", "pretrain"),
        ("specialization", "specialize"),
        ("alignment", "sft"),
        ("alignment", "dpo"),
    ):
        alone, together = losses(tmp_path / "one", phase, step), losses(tmp_path / "two", phase, step)
        assert len(alone) == len(together) > 0
        for expected, found in zip(alone, together, strict=True):
            plugin = [key for key in expected if key.startswith("loss")]
            assert len(plugin) >= 2
            assert {key: found[key] for key in plugin} == pytest.approx(
                {key: expected[key] for key in plugin}, rel=2e-3
            )
