"""The phase's recipe, and the hook that tells what quantizing cost."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from phasegate import SaveContext
from phasegate.registry.plugins import Plugins
from safetensors.torch import save_file

from phasegate_nbit.options import ConsolidationConfig
from phasegate_nbit.phase import Consolidation
from phasegate_nbit.plugin import phasegate_on_save
from phasegate_nbit.report import FILE

DERIVED = {"rows": 4, "learning_rate": 1e-2}


def test_the_recipe_names_components_that_the_package_has() -> None:
    components = Plugins.load(["phasegate-nbit"]).components()
    (step,) = Consolidation(ConsolidationConfig(bits=4)).recipe(DERIVED)["steps"].values()
    assert components.config("quantizer", step["quantizer"]["use"], {"bits": step["quantizer"]["bits"]}).bits == 4
    assert components.get("loss", step["losses"]["routing-consistency"]["use"]).name == "routing-consistency"
    assert (step["rows"], step["learning_rate"]) == (4, pytest.approx(1e-3))


def test_a_consistency_of_nothing_leaves_the_loss_out() -> None:
    (step,) = Consolidation(ConsolidationConfig(consistency=0.0)).recipe(DERIVED)["steps"].values()
    assert step["losses"] == {}


def stage(folder: Path, quantizer: object) -> Path:
    checkpoint = folder / "checkpoint"
    checkpoint.mkdir(parents=True)
    (checkpoint / "config.json").write_text(json.dumps({"phasegate_quantizer": quantizer}))
    weights = {
        "model.layers.0.mlp.experts.gate_up_proj": torch.tensor([[[3.0, 1.4, 0.0, -3.0]]]),
        "model.layers.1.mlp.experts.down_proj": torch.tensor([[[3.0, -2.0]]]),
        "model.layers.1.self_attn.q_proj.weight": torch.ones(2, 2),
    }
    save_file(weights, checkpoint / "model.safetensors")
    return folder


def save(folder: Path, *, is_main: bool = True) -> None:
    phasegate_on_save(SaveContext(phase="consolidation", folder=folder, is_main=is_main))


def test_a_stage_with_quantized_experts_gets_the_error_of_each_layer(tmp_path: Path) -> None:
    save(stage(tmp_path, {"use": "phasegate-nbit:nbit", "options": {"bits": 3}}))
    told = json.loads((tmp_path / FILE).read_text())
    assert told["quantizer"]["options"] == {"bits": 3}
    # 3 steps of 1: only 1.4 is rounded, by 0.4, of 9 + 1.96 + 9; the second layer loses nothing.
    first = told["layers"]["0"]["gate_up_proj"]
    assert first["error"] == pytest.approx(0.16 / 19.96) and first["edge"] == 0.5
    assert first["snr"] == pytest.approx(20.96, abs=0.01)
    assert told["layers"]["1"] == {"down_proj": {"edge": 0.5, "error": 0.0, "snr": None}}
    assert told["error"] == pytest.approx(0.16 / (19.96 + 13.0))


@pytest.mark.parametrize("quantizer", [None, {"use": "ternary", "options": {}}])
def test_other_stages_are_left_alone(tmp_path: Path, quantizer: object) -> None:
    save(stage(tmp_path, quantizer))
    assert not (tmp_path / FILE).exists()


def test_only_the_main_process_writes(tmp_path: Path) -> None:
    save(stage(tmp_path, {"use": "nbit", "options": {}}), is_main=False)
    assert not (tmp_path / FILE).exists()
