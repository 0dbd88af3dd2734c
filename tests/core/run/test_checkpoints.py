"""``phasegate.load``: whatever folder is meant, the model comes whole or not at all."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ["HF_HUB_OFFLINE"] = "1"

import phasegate
import pytest
import torch
from phasegate.core.cli.app import main
from phasegate.core.config.schema import Ref
from phasegate.core.model.anchors import Guard
from phasegate.core.model.builder import ModelContext
from phasegate.core.model.companions import attach, trunk_digest
from phasegate.core.model.loading import save_model
from phasegate.core.model.tokenizer import load_tokenizer, train_tokenizer
from phasegate.core.run.checkpoints import find_checkpoint
from phasegate.core.run.fingerprint import recipe_of
from phasegate.core.run.records import RunFolder, create_run
from phasegate.core.run.store import Stage, Store
from phasegate.registry.errors import PluginError, StoreError
from phasegate.registry.plugins import Plugins

SIZES = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "head_dim": 8,
    "moe_intermediate_size": 8,
    "num_experts": 4,
    "num_experts_per_tok": 1,
    "initializer_range": 0.3,
}


def half_space(at: float) -> Any:
    """A half-space that vetoes states whose first number is above ``at``."""
    anchor = Plugins.load(()).components().build("anchor", "half-space", {})
    tensors = {
        "direction": torch.eye(16)[0],
        "margins": torch.zeros(0),
        "offset": torch.tensor([at], dtype=torch.float64),
        "references": torch.zeros(0, 0, dtype=torch.int64),
        "sides": torch.zeros(0),
    }
    anchor.restore({"references": 0, "width": 16}, tensors)
    return anchor


def write_model(folder: Path, *, at: float | None = None) -> Any:
    """A tiny model in ``folder``, with an anchor if ``at`` says where."""
    torch.set_num_threads(1)
    registry = Plugins.load(()).components()
    tokenizer = train_tokenizer(["the cat sat on the mat .", "no ."] * 9, 270)
    context = ModelContext(
        registry=registry, router=Ref(use="linear"), derived=SIZES, vocab_size=270, sequence_length=32
    )
    model = registry.build("model", "moe", {}, context=context).build(0)
    if at is not None:
        guard = Guard(
            reference="phasegate:half-space",
            revision=1,
            options={},
            anchor=half_space(at),
            digest=trunk_digest(model),
            refusal="no .",
        )
        attach(model, "anchor", guard)
    save_model(model, tokenizer, folder)
    return model


def commit(store: Store, phase: str, at: float = -1e9) -> Stage:
    with store.draft(store.begin(recipe_of({"phase": phase}))) as draft:
        write_model(draft.checkpoint, at=at)
        return store.commit(draft, {})


@dataclass
class Outcome:
    """What a run notes of a phase."""

    name: str
    stage: Stage
    reused: bool = False
    action: str = "advance"
    reason: str = ""


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    """A committed stage whose model has an anchor that vetoes everything."""
    return commit(Store(tmp_path / "store"), "alignment")


def export(*arguments: str) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["export", *arguments])
    assert not stop.value.code


def run_with(stage: Stage | None, root: Path) -> RunFolder:
    run = create_run(root, "nano", text="name: nano\n", plan={}, manifest={})
    if stage is not None:
        run.add_stage(Outcome("alignment", stage))
    return run


def test_a_checkpoint_an_export_a_stage_and_a_run_all_speak(
    stage: Stage, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    export(str(stage.folder), str(tmp_path / "out"))
    run = run_with(stage, tmp_path / "runs")
    for folder in (stage.checkpoint, stage.folder, run.path, tmp_path / "out"):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            said = phasegate.load(folder).generate(text=["the cat", "on"], max_new_tokens=3)
        assert said.texts == ("no .", "no .")


def test_the_last_stage_of_a_run_is_meant(stage: Stage, tmp_path: Path) -> None:
    run = run_with(stage, tmp_path / "runs")
    run.add_stage(Outcome("safety", commit(Store(tmp_path / "store"), "safety")))
    assert find_checkpoint(run.path).parent.name.startswith("safety-")


def test_a_run_whose_stages_lie_elsewhere_is_told_where(stage: Stage, tmp_path: Path) -> None:
    run = run_with(stage, tmp_path / "elsewhere" / "runs")
    assert find_checkpoint(run.path, tmp_path / "store") == stage.checkpoint
    with pytest.raises(StoreError, match="has no stage"):
        find_checkpoint(run.path)


def test_a_stage_is_found_by_its_name(stage: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert find_checkpoint(stage.name, tmp_path / "store") == stage.checkpoint
    monkeypatch.chdir(tmp_path)
    assert find_checkpoint(stage.name).resolve() == stage.checkpoint


def test_a_stage_whose_files_were_changed_is_not_loaded(stage: Stage, tmp_path: Path) -> None:
    config = stage.checkpoint / "config.json"
    config.write_text(config.read_text(encoding="utf-8").replace("phasegate_companions", "nothing"), encoding="utf-8")
    shutil.rmtree(stage.checkpoint / "companions")
    for folder in (stage.folder, run_with(stage, tmp_path / "runs").path):
        with pytest.raises(StoreError, match="is damaged"):
            phasegate.load(folder)


@pytest.mark.parametrize("what", ["nothing", "empty"])
def test_a_folder_without_a_model_is_told_in_one_sentence(tmp_path: Path, what: str) -> None:
    if what == "empty":
        (tmp_path / what).mkdir()
    with pytest.raises(StoreError, match=r"is not a run folder|has no stage"):
        phasegate.load(tmp_path / what)


def test_a_run_without_a_finished_phase_is_told(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="has finished no phase yet"):
        phasegate.load(run_with(None, tmp_path / "runs").path)


def test_companions_of_other_weights_are_warned_of(tmp_path: Path) -> None:
    model = write_model(tmp_path / "in", at=1e9)
    with torch.no_grad():
        model.model.norm.weight[0] += 0.5
    save_model(model, load_tokenizer(tmp_path / "in"), tmp_path / "moved")
    with pytest.warns(UserWarning, match="the anchor of the model in .* belong to other weights"):
        phasegate.load(tmp_path / "moved")


def test_plugins_are_loaded_by_name(tmp_path: Path) -> None:
    write_model(tmp_path / "in")
    with pytest.raises(PluginError, match="nobody"):
        phasegate.load(tmp_path / "in", plugins=["nobody"])


def test_a_model_without_companions_speaks(tmp_path: Path) -> None:
    write_model(tmp_path / "in")
    speaker = phasegate.load(tmp_path / "in")
    assert (len(speaker.generate(text="the cat", max_new_tokens=3).texts), dict(speaker.companions)) == (1, {})


def test_the_face_imports_no_torch_until_a_model_is_loaded() -> None:
    code = "import sys, phasegate; phasegate.load; assert 'torch' not in sys.modules and 'pydantic' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


READER = """
import sys
from transformers import AutoModelForCausalLM
try:
    AutoModelForCausalLM.from_pretrained(sys.argv[1])
except ValueError as error:
    print(type(error).__name__, "phasegate_guarded" in str(error), "phasegate" in sys.modules)
else:
    print("loaded")
"""


def read_without_phasegate(folder: Path) -> str:
    done = subprocess.run(
        [sys.executable, "-c", READER, str(folder)], capture_output=True, text=True, check=True, cwd=folder.parent
    )
    return done.stdout.splitlines()[-1]


def test_export_keeps_the_anchor_and_says_so_and_drops_it_on_request(
    stage: Stage, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    export(str(stage.checkpoint), str(tmp_path / "kept"))
    assert "phasegate.load reads it" in capsys.readouterr().out
    export(str(stage.checkpoint), str(tmp_path / "bare"), "--drop-anchor")
    told = capsys.readouterr().out
    assert "the safety anchor was dropped" in told and "qwen3_moe" in told
    assert read_without_phasegate(tmp_path / "kept") == "ValueError True False"
    assert read_without_phasegate(tmp_path / "bare") == "loaded"
