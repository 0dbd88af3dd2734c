"""``platform deltas``: a file for every pair of neighbours, and what they save."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

os.environ["HF_HUB_OFFLINE"] = "1"

import numpy as np
import pytest
import torch
import typer
from phasegate.core.cli.deltas import command, show
from phasegate.core.config.schema import Ref
from phasegate.core.model.builder import ModelContext
from phasegate.core.model.delta_file import apply_delta
from phasegate.core.model.deltas import write_deltas
from phasegate.core.model.loading import save_model
from phasegate.core.model.packed import read_experts, save_packed
from phasegate.core.model.parameters import expert_parameters
from phasegate.core.model.quantizer import Codes
from phasegate.core.model.router import RouterBase
from phasegate.core.model.tokenizer import train_tokenizer
from phasegate.registry.errors import ConfigError, StoreError
from phasegate.registry.plugins import Plugins
from typer.testing import CliRunner, Result

SIZES = {
    "hidden_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "head_dim": 8,
    "moe_intermediate_size": 32,
    "num_experts": 4,
    "num_experts_per_tok": 1,
    "initializer_range": 0.06,
}


def run(*arguments: object) -> Result:
    app = typer.Typer()
    app.command()(command)
    return CliRunner().invoke(app, [str(argument) for argument in arguments], env={"COLUMNS": "200"})


def alike(shape: tuple[int, ...], draw: np.random.Generator) -> np.ndarray:
    """Experts that differ from a common one in 2 % of their weights each."""
    trits = np.repeat(draw.integers(-1, 2, (1, *shape[1:])), shape[0], axis=0)
    moved = draw.random(shape) < 0.02
    return ((trits + 1 + moved * draw.integers(1, 3, shape)) % 3 - 1).astype(np.int8)


@pytest.fixture(scope="module")
def stages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model with full experts, ``plain``, and one whose experts are much alike, ``packed``."""
    torch.set_num_threads(1)
    folder, registry = tmp_path_factory.mktemp("stages"), Plugins.load(()).components()
    context = ModelContext(
        registry=registry, router=Ref(use="linear"), derived=SIZES, vocab_size=270, sequence_length=32
    )
    model = registry.build("model", "moe", {}, context=context).build(0)
    tokenizer = train_tokenizer(["the cat sat on the mat ."] * 9, 270)
    save_model(model, tokenizer, folder / "plain")
    draw = np.random.default_rng(0)
    codes = {}
    for name in expert_parameters(model):
        shape = tuple(model.get_parameter(name).shape)
        scales = torch.from_numpy(draw.random(shape[:2]).astype(np.float16))
        codes[name] = Codes(trits=torch.from_numpy(alike(shape, draw)), scales=scales)
    save_packed(model, tokenizer, folder / "packed", codes)
    return folder


@pytest.fixture
def ring(monkeypatch: pytest.MonkeyPatch) -> None:
    """Routers whose experts lie in a ring of four."""
    monkeypatch.setattr(RouterBase, "edges", lambda self: torch.tensor([[0, 1], [1, 2], [2, 3], [0, 3]]))


@pytest.mark.usefixtures("ring")
def test_neighbours_get_a_file_that_leads_both_ways(stages: Path, tmp_path: Path) -> None:
    done = run(stages / "packed", tmp_path / "deltas")
    assert done.exit_code == 0, done.output
    names = ["delta_000_001.trd", "delta_000_003.trd", "delta_001_002.trd", "delta_002_003.trd"]
    assert sorted(path.name for path in (tmp_path / "deltas").iterdir()) == names
    experts = read_experts(stages / "packed")
    other = apply_delta(tmp_path / "deltas" / "delta_001_002.trd", experts[2], expert=2)
    assert all(np.array_equal(other[key][part], experts[1][key][part]) for key in other for part in (0, 1))


@pytest.mark.usefixtures("ring")
def test_the_table_says_what_deltas_take_against_whole_experts_and_the_bound(stages: Path, tmp_path: Path) -> None:
    shown = run(stages / "packed", tmp_path / "deltas").output
    heading, row = shown.splitlines()[:2]
    assert heading.split() == ["PAIRS", "DIFFER", "BYTES", "WHOLE", "EXPERTS", "SMALLER", "BITS/WEIGHT", "BOUND"]
    pairs, differ, *_, measured, bound = row.split()
    assert pairs == "4"
    # two experts differ where one of them moved, or both to different values: 1 - 0.98^2 - 0.02^2 / 2
    assert float(differ.rstrip("%")) == pytest.approx(3.94, abs=0.5)
    assert 0.2 < float(bound) < float(measured) < 1.6
    assert str(tmp_path / "deltas") in shown


def test_all_pairs_are_written_where_they_are_asked_for(stages: Path, tmp_path: Path) -> None:
    assert run(stages / "packed", tmp_path / "deltas", "--all-pairs").exit_code == 0
    assert len(list((tmp_path / "deltas").iterdir())) == 6


def test_a_router_without_neighbours_is_an_error_that_says_what_to_add(stages: Path, tmp_path: Path) -> None:
    done = run(stages / "packed", tmp_path / "deltas")
    assert isinstance(done.exception, ConfigError)
    assert "knows no neighbours" in str(done.exception)
    assert "add --all-pairs" in str(done.exception)
    assert list(tmp_path.iterdir()) == []


def test_a_stage_whose_experts_are_not_quantized_is_an_error(stages: Path, tmp_path: Path) -> None:
    done = run(stages / "plain", tmp_path / "deltas", "--all-pairs")
    assert isinstance(done.exception, ConfigError)
    assert "not quantized" in str(done.exception)
    assert list(tmp_path.iterdir()) == []


def test_a_stage_is_read_through_its_quantizer(stages: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def encode(model: Any) -> dict[str, Codes]:
        weights = {name: model.get_parameter(name) for name in expert_parameters(model)}
        return {
            name: Codes(trits=weight.sign().to(torch.int8), scales=torch.ones(weight.shape[:2], dtype=torch.float16))
            for name, weight in weights.items()
        }

    monkeypatch.setattr("phasegate.core.model.quantization.encode_experts", encode)
    done = run(stages / "plain", tmp_path / "deltas", "--all-pairs")
    # Signs of random weights differ in half of the places, where a delta is no smaller.
    assert "6 of 6 deltas would be no smaller than the whole expert" in " ".join(done.output.split())
    names = sorted(path.name for path in (tmp_path / "deltas").iterdir())
    assert names == ["expert_001.trit", "expert_002.trit", "expert_003.trit"]


def test_a_file_that_pairs_share_counts_once_on_disk_and_is_read_for_each(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    draw = np.random.default_rng(0)
    experts = [{(0, 0): (draw.integers(-1, 2, (20, 50), dtype=np.int8), np.ones(20, np.float16))} for _ in range(3)]
    report = write_deltas(experts, [(0, 2), (1, 2)], tmp_path / "deltas")
    size = (tmp_path / "deltas" / "expert_002.trit").stat().st_size
    assert (report.full, report.bytes, report.full_bytes) == (2, size, 2 * size)
    show(report)
    assert "1.00x" in capsys.readouterr().out


def test_a_folder_that_is_not_empty_is_left_alone(stages: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("kept")
    done = run(stages / "packed", tmp_path, "--all-pairs")
    assert isinstance(done.exception, StoreError)
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]
