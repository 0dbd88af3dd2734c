"""Checkpoints from elsewhere are data: whatever path leads to one, nothing in it runs, and a sentence refuses it."""

from __future__ import annotations

import gzip
import json
import pickle
import shutil
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import phasegate
import pytest
import torch
from phasegate.core.model.draft import draft_facts, draft_tensors
from phasegate.core.model.loading import load_model
from phasegate.core.model.tokenizer import load_tokenizer
from phasegate.core.run.fingerprint import recipe_of
from phasegate.core.run.records import create_run
from phasegate.core.run.store import Store
from phasegate.evals.rightness import Entailment
from phasegate.registry.errors import ConfigError, PhasegateError, StoreError
from phasegate.registry.plugins import Plugins

Bomb = Callable[[Path], Path]
Refused = Callable[..., str]
Experiment = Callable[..., Path]
PICKLES = ("only pickles", "a pickle called safetensors")
BESIDE = ("optimizer.pt", "rng_state.pth", "scheduler.pt", "training_args.bin", "pytorch_model.bin", "tokenizer.pkl")


@pytest.fixture
def pickled(llama: Path, bomb: Bomb, request: pytest.FixtureRequest) -> Path:
    """The foreign model with a pickle in place of its weights."""
    (llama / "model.safetensors").unlink()
    if request.param == PICKLES[0]:
        bomb(llama / "pytorch_model.bin")
    else:
        made = bomb(llama / "weights.pkl")
        made.rename(llama / "model.safetensors")
    return llama


def test_the_pickles_of_these_tests_would_run_code(bomb: Bomb, marker: Path, tmp_path: Path) -> None:
    torch.load(bomb(tmp_path / "a.bin"), weights_only=False)
    assert marker.exists()
    marker.unlink()
    pickle.loads(bomb(tmp_path / "a.pkl").read_bytes())
    assert marker.exists()


COMMANDS: dict[str, Callable[[Path], tuple[str, ...]]] = {
    "eval": lambda model: ("eval", f"{model}", "--tasks", "blimp", "--data-dir", "."),
    "export": lambda model: ("export", f"{model}", "out"),
    "export --packed": lambda model: ("export", f"{model}", "out", "--packed"),
    "deltas": lambda model: ("deltas", f"{model}", "out"),
}


@pytest.mark.parametrize("pickled", PICKLES, indirect=True)
@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_refuses_weights_that_are_a_pickle(
    pickled: Path, command: str, refused: Refused, marker: Path
) -> None:
    (pickled.parent / "evals" / "blimp").mkdir(parents=True)
    row = {"UID": "x", "pairID": "0", "sentence_good": "the cat .", "sentence_bad": "cat the .", "field": "syntax"}
    row |= {"linguistics_term": "x", "simple_LM_method": True, "one_prefix_method": False, "two_prefix_method": False}
    row |= {"lexically_identical": False}
    with gzip.open(pickled.parent / "evals" / "blimp" / "blimp_part.jsonl.gz", "wt") as file:
        file.write(json.dumps(row) + "\n")
    sentence = refused(*COMMANDS[command](pickled))
    assert "pickles, which could run anything" in sentence or "cannot be read" in sentence
    assert not marker.exists() and not (pickled.parent / "out").exists()


@pytest.mark.parametrize("pickled", PICKLES, indirect=True)
def test_python_refuses_weights_that_are_a_pickle(pickled: Path, marker: Path) -> None:
    with pytest.raises(StoreError, match=r"pickles, which could run anything|cannot be read"):
        phasegate.load(pickled)
    assert not marker.exists()


@pytest.mark.parametrize("pickled", PICKLES[:1], indirect=True)
def test_an_experiment_refuses_to_start_from_a_pickle(
    pickled: Path, refused: Refused, experiment: Experiment, marker: Path
) -> None:
    path = experiment(model=f"{{use: stock, path: {pickled.name}}}", tokenizer=f"{{path: {pickled.name}}}")
    assert "pickles, which could run anything" in refused("plan", path)
    assert not marker.exists()


@pytest.mark.parametrize("pickled", PICKLES, indirect=True)
def test_a_run_whose_stage_holds_a_pickle_is_not_compared(
    pickled: Path, refused: Refused, experiment: Experiment, marker: Path, tmp_path: Path
) -> None:
    store = Store(tmp_path / "store")
    recipe = recipe_of({"phase": "only", "section": {"steps": {}}})
    with store.draft(store.begin(recipe)) as draft:
        shutil.copytree(pickled, draft.checkpoint, dirs_exist_ok=True)
        stage = store.commit(draft, {})
    run = create_run(tmp_path / "runs", "hostile", text=experiment().read_text(), plan={}, manifest={})
    run.add_stage(types.SimpleNamespace(name="only", stage=stage, reused=False, action="advance", reason=""))
    (tmp_path / "text.txt").rename(run.path / "text.txt")
    sentence = refused("compare", run.path, "--prompt", "the cat", "--store", store.root)
    assert "pickles, which could run anything" in sentence or "cannot be read" in sentence
    assert not marker.exists()


def test_pickles_beside_safetensors_are_never_read(llama: Path, bomb: Bomb, marker: Path) -> None:
    for name in BESIDE:
        bomb(llama / name)
    speaker = phasegate.load(llama)
    assert speaker.generate(text="the cat", max_new_tokens=1, do_sample=False).texts
    assert not marker.exists()


def test_an_adapter_that_leads_elsewhere_is_refused(llama: Path, bomb: Bomb, marker: Path) -> None:
    bomb(llama / "adapter_model.bin")
    (llama / "adapter_config.json").write_text('{"base_model_name_or_path": "owner/name"}', encoding="utf-8")
    with pytest.raises(StoreError, match="holds an adapter"):
        phasegate.load(llama)
    assert not marker.exists()


@pytest.mark.parametrize("name", ["draft.bin", "draft.pt", "draft.safetensors"])
def test_a_draft_that_is_a_pickle_is_refused(name: str, bomb: Bomb, marker: Path, tmp_path: Path) -> None:
    made = bomb(tmp_path / "draft" / "companions" / "draft.bin")
    made.rename(made.with_name(name))
    (made.parent / "draft.json").write_text('{"shape": {"vocab_size": 270}}', encoding="utf-8")
    assert draft_facts(str(tmp_path / "draft"))["shape"]
    with pytest.raises(StoreError, match=r"draft model .* cannot be read"):
        draft_tensors(str(tmp_path / "draft"))
    assert not marker.exists()


@pytest.mark.parametrize("name", ["tokenizer.json", "tokenizer.model", "tokenizer.pkl", "vocab.bin"])
def test_a_tokenizer_that_is_a_pickle_is_refused(
    name: str, bomb: Bomb, marker: Path, tmp_path: Path, refused: Refused, experiment: Experiment
) -> None:
    bomb(tmp_path / "words" / name)
    with pytest.raises(ConfigError, match="No tokenizer can be read"):
        load_tokenizer(tmp_path / "words")
    assert "No tokenizer can be read" in refused("train", experiment(tokenizer="{path: words, vocab_size: 270}"))
    assert not marker.exists()


@pytest.mark.parametrize("pickled", PICKLES, indirect=True)
def test_a_classifier_that_is_a_pickle_judges_nothing(pickled: Path, marker: Path) -> None:
    with pytest.raises(PhasegateError, match=r"pickles, which could run anything|cannot be read"):
        Entailment.load(str(pickled))
    assert not marker.exists()


@pytest.mark.parametrize("kind", ["bin", "npy", "parquet", "pkl", "pkl.gz", "pt", "txt"])
def test_data_that_is_a_pickle_is_refused(
    kind: str, bomb: Bomb, marker: Path, tmp_path: Path, refused: Refused, experiment: Experiment
) -> None:
    bomb(tmp_path / "rows.pt").rename(tmp_path / f"rows.{kind}")
    source = f"{{sequence_length: 32, sources: {{own: {{use: files, paths: [rows.{kind}], domain: general}}}}}}"
    assert "'own'" in refused("train", experiment(data=source))
    assert not marker.exists()


@pytest.mark.parametrize("path", ["rows", "pandas"])
def test_a_data_set_that_is_a_pickle_is_refused(
    path: str, bomb: Bomb, marker: Path, tmp_path: Path, refused: Refused, experiment: Experiment
) -> None:
    bomb(tmp_path / "rows" / "train.pkl")
    bomb(tmp_path / "train.pkl")  # where `datasets` would look for the files of a format
    source = f"{{sequence_length: 32, sources: {{own: {{use: hub, path: {path}, domain: general}}}}}}"
    assert "'own'" in refused("train", experiment(data=source))
    assert not marker.exists()


# ---- code that a checkpoint brings, or would fetch


def change(folder: Path, file: str, **fields: Any) -> None:
    path = folder / file
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | fields), encoding="utf-8")


@pytest.fixture
def with_code(llama: Path, marker: Path) -> Path:
    """The foreign model with modules of its own, which would leave a mark."""
    (llama / "own.py").write_text(f"open({str(marker)!r}, 'w')\n", encoding="utf-8")
    names = {"AutoConfig": "own.Config", "AutoModelForCausalLM": "own.Model", "AutoTokenizer": ["own.Words", None]}
    change(llama, "config.json", auto_map=names)
    change(llama, "tokenizer_config.json", auto_map={"AutoTokenizer": ["own.Words", None]})
    return llama


def test_code_that_comes_with_a_known_family_stays_behind_with_a_word(with_code: Path, marker: Path) -> None:
    with pytest.warns(UserWarning, match=r"brings code of its own .* never run: it is read as the llama"):
        speaker = phasegate.load(with_code)
    assert type(speaker.model).__name__ == "LlamaForCausalLM" and not hasattr(speaker.model.config, "auto_map")
    assert not marker.exists()


@pytest.mark.filterwarnings("ignore:.*brings code of its own")
def test_an_export_does_not_name_code_that_stayed_behind(
    with_code: Path, marker: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from phasegate.core.model.exporting import export_model

    export_model(with_code, tmp_path / "out", Plugins.load(()).components())
    assert all("auto_map" not in path.read_text() for path in (tmp_path / "out").glob("*.json"))
    assert not marker.exists()


@pytest.mark.filterwarnings("ignore:.*brings code of its own")
def test_a_family_that_only_its_own_code_knows_is_refused(
    with_code: Path, marker: Path, refused: Refused, experiment: Experiment
) -> None:
    change(with_code, "config.json", model_type="own")
    assert "cannot be read" in refused("export", with_code, "out")
    assert "no readable model configuration" in refused("plan", experiment(model="{use: stock, path: llama}"))
    assert not marker.exists()


FETCHED = [
    {"attn_implementation": "owner/kernel"},
    {"_attn_implementation": "owner/kernel"},
    {"attn_implementation": {"text_config": "owner/kernel@v1"}},
    {"experts_implementation": "owner/kernel"},
    {"text_config": {"attn_implementation": "flash|owner/kernel:forward"}},
]


@pytest.mark.parametrize("fields", FETCHED)
def test_kernels_that_a_configuration_would_fetch_from_the_hub_are_refused(
    llama: Path, fields: dict[str, Any], refused: Refused, experiment: Experiment
) -> None:
    change(llama, "config.json", **fields)
    assert "code that would be fetched" in refused("export", llama, "out")
    assert "code that would be fetched" in refused("plan", experiment(model="{use: stock, path: llama}"))


STRANGE: list[dict[str, Any]] = [
    {"quantization_config": {"quant_method": "bitsandbytes", "load_in_4bit": True}},
    {"hidden_act": "os.system"},
    {"dtype": "system"},
    {"transformers_weights": "../outside.bin"},
    {"hidden_size": "many"},
]


@pytest.mark.parametrize("fields", STRANGE)
def test_a_configuration_that_makes_no_sense_is_refused_in_a_sentence(
    llama: Path, fields: dict[str, Any], refused: Refused
) -> None:
    change(llama, "config.json", **fields)
    assert "config" in refused("export", llama, "out")


@pytest.mark.parametrize("name", ["os:system", "phasegate.core.cli.app:main", "own.Model", "../own"])
def test_an_experiment_cannot_name_code(
    name: str, refused: Refused, experiment: Experiment, tmp_path: Path, marker: Path
) -> None:
    (tmp_path / "own.py").write_text(f"open({str(marker)!r}, 'w')\n", encoding="utf-8")
    assert "model" in refused("plan", experiment(model=f"{{use: '{name}'}}"))
    assert "own" in refused("plan", experiment(plugins="[own]")) and not marker.exists()


def test_a_checkpoint_cannot_name_code_as_its_router(llama: Path, marker: Path) -> None:
    change(llama, "config.json", model_type="phasegate_moe", router="os:system", num_experts=2, num_experts_per_tok=1)
    with pytest.raises(PhasegateError):
        load_model(llama, Plugins.load(()).components())
    assert not marker.exists()
