"""``platform eval``: whatever model is meant, what was measured stays measured, and what was not is never a score."""

from __future__ import annotations

import gzip
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

os.environ["HF_HUB_OFFLINE"] = "1"

import pytest
import torch
from phasegate.core.cli.app import main
from phasegate.core.config.schema import Ref
from phasegate.core.model.builder import ModelContext
from phasegate.core.model.loading import save_model
from phasegate.core.model.tokenizer import train_tokenizer
from phasegate.core.run.fingerprint import recipe_of
from phasegate.core.run.records import create_run
from phasegate.core.run.store import Stage, Store
from phasegate.core.run.targets import Target
from phasegate.registry.plugins import Plugins
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
from transformers.utils import logging

logging.disable_progress_bar()

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
PAIRS = 12
Eval = Callable[..., str]


def pair(paradigm: str, number: int) -> dict[str, Any]:
    """A minimal pair as BLiMP's own files have it."""
    return {
        "UID": paradigm,
        "pairID": str(number),
        "field": "syntax",
        "linguistics_term": "agreement",
        "sentence_good": f"the cat number {number} sleeps on the mat .",
        "sentence_bad": f"the cat number {number} sleep on the mat .",
        "simple_LM_method": True,
        "one_prefix_method": False,
        "two_prefix_method": False,
        "lexically_identical": False,
    }


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    return train_tokenizer(["the cat sleeps on the mat .", "no number ."] * 9, 270)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory, tokenizer: PreTrainedTokenizerFast) -> Path:
    """Two models of the platform, ``one`` and ``two``, and ``llama``, which the platform did not make."""
    torch.set_num_threads(1)
    root, registry = tmp_path_factory.mktemp("models"), Plugins.load(()).components()
    context = ModelContext(
        registry=registry, router=Ref(use="linear"), derived=SIZES, vocab_size=270, sequence_length=64
    )
    for seed, name in enumerate(("one", "two")):
        save_model(registry.build("model", "moe", {}, context=context).build(seed), tokenizer, root / name)
    torch.manual_seed(0)
    llama = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=270,
            hidden_size=16,
            intermediate_size=16,
            num_hidden_layers=1,
            num_attention_heads=2,
            initializer_range=0.3,
        )
    )
    llama.save_pretrained(root / "llama")
    tokenizer.save_pretrained(root / "llama")
    return root


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder that has two paradigms of BLiMP and nothing else."""
    root = tmp_path_factory.mktemp("data")
    rows = [pair(name, number) for name in ("wh_island", "adjunct_island") for number in range(PAIRS)]
    file = root / "evals" / "blimp" / "blimp_part.jsonl.gz"
    file.parent.mkdir(parents=True)
    file.write_bytes(gzip.compress("".join(json.dumps(row) + "\n" for row in rows).encode()))
    return root


@pytest.fixture
def evaluate(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Eval:
    """Run the command on the tiny data with a store of this test; returns what it printed on success."""
    monkeypatch.setenv("COLUMNS", "300")

    def run(target: Path | str, *arguments: str, tasks: str = "blimp", code: int = 0) -> str:
        given = [str(target), "--tasks", tasks, "--data-dir", str(data), "--store", str(tmp_path / "store"), *arguments]
        with pytest.raises(SystemExit) as ended:
            main(["eval", *given])
        said = capsys.readouterr()
        assert (ended.value.code or 0) == code, said.err
        return said.err if code else said.out

    return run


def kept(tmp_path: Path) -> list[Path]:
    return sorted((tmp_path / "store" / "benchmarks").glob("*.json"))


def commit(store: Store, phase: str, model: Path) -> Stage:
    recipe = recipe_of({"phase": phase, "section": {"steps": {}}})
    with store.draft(store.begin(recipe)) as draft:
        shutil.copytree(model, draft.checkpoint, dirs_exist_ok=True)
        return store.commit(draft, {})


@pytest.fixture
def run(models: Path, tmp_path: Path) -> Path:
    """A run of two phases whose stages lie in the test's store."""
    store = Store(tmp_path / "store")
    folder = create_run(tmp_path / "runs", "nano", text="name: nano\n", plan={}, manifest={})
    for phase, model in (("foundation", "one"), ("alignment", "two")):
        stage = commit(store, phase, models / model)
        outcome = SimpleNamespace(name=phase, stage=stage, reused=False, action="advance", reason="")
        folder.add_stage(outcome)
    return folder.path


def test_a_benchmark_is_told_with_its_interval_chance_level_documents_and_source(
    evaluate: Eval, models: Path, tmp_path: Path
) -> None:
    shown = evaluate(models / "one")
    (row,) = [line for line in shown.splitlines() if line.startswith("blimp ")]
    assert " acc " in row and " 0.5 " in row and f" {2 * PAIRS} " in row
    assert "blimp: evals/blimp/blimp_part.jsonl.gz (" in shown and "of 67,000 documents" in shown
    assert "acc/wh_island" not in shown
    (file,) = kept(tmp_path)
    written = json.loads(file.read_text(encoding="utf-8"))
    assert written["measurements"]["acc"]["n"] == 2 * PAIRS == len(written["measurements"]["acc"]["per_document"])
    assert written["versions"].keys() >= {"torch", "transformers", "lm_eval", "device"}
    assert "acc/wh_island" in evaluate(models / "one", "--subtasks")


def test_what_was_measured_is_found_again_without_the_model(
    evaluate: Eval, models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = json.loads(evaluate(models / "one", "--format", "json"))
    monkeypatch.setattr(Target, "load", lambda *_: pytest.fail("the model was loaded"))
    again = json.loads(evaluate(models / "one", "--format", "json"))
    assert again["results"][0].pop("cached") and not first["results"][0].pop("cached")
    assert again == first
    assert "from the cache" in evaluate(models / "one")


def test_fresh_measures_again_and_finds_the_same(evaluate: Eval, models: Path, tmp_path: Path) -> None:
    evaluate(models / "one")
    (file,) = kept(tmp_path)
    before = json.loads(file.read_text())
    file.write_text("damaged")
    evaluate(models / "one", "--fresh")
    after = json.loads(file.read_text())
    assert kept(tmp_path) == [file] and after["measurements"] == before["measurements"]


@pytest.mark.parametrize(
    "change", [["--documents", "4"], ["--dtype", "bfloat16"], ["--batch-size", "3"], ["--seed", "7"]], ids=" ".join
)
def test_another_setting_is_another_result(evaluate: Eval, models: Path, tmp_path: Path, change: list[str]) -> None:
    evaluate(models / "one")
    evaluate(models / "one", *change)
    assert len(kept(tmp_path)) == 2


def test_the_saved_precision_by_name_is_the_same_result(evaluate: Eval, models: Path, tmp_path: Path) -> None:
    evaluate(models / "one")
    assert "from the cache" in evaluate(models / "one", "--dtype", "float32")


def test_the_number_of_documents_is_told(evaluate: Eval, models: Path) -> None:
    (found,) = json.loads(evaluate(models / "one", "--documents", "6", "--format", "json"))["results"]
    assert found["measurements"]["acc"]["n"] == 6 and found["documents"] == 6


def test_a_damaged_result_is_named_and_not_replaced(evaluate: Eval, models: Path, tmp_path: Path) -> None:
    evaluate(models / "one")
    (file,) = kept(tmp_path)
    file.write_text(file.read_text()[:200])
    assert str(file) in evaluate(models / "one", code=2).replace("\n", "")
    assert len(file.read_text()) == 200


def test_an_unknown_benchmark_names_the_nearest(evaluate: Eval, models: Path) -> None:
    said = evaluate(models / "one", tasks="blimp,arc_esy", code=2)
    assert "there is no benchmark 'arc_esy'" in said and "arc_easy" in said


def test_a_benchmark_without_data_is_not_evaluated_and_never_zero(evaluate: Eval, models: Path, tmp_path: Path) -> None:
    shown = evaluate(models / "one", tasks="blimp,boolq")
    (row,) = [line for line in shown.splitlines() if line.startswith("boolq ")]
    assert row.split() == ["boolq", *"–––––", "not", "evaluated"]
    assert "boolq: not evaluated: benchmark 'boolq' needs evals/boolq.jsonl.gz" in shown
    assert len(kept(tmp_path)) == 1
    plain = json.loads(evaluate(models / "one", "--format", "json", tasks="boolq,blimp"))
    assert plain["results"][0]["missing"] and plain["results"][0]["measurements"] == {}


def test_where_nothing_is_evaluated_the_command_fails(evaluate: Eval, models: Path) -> None:
    assert "nothing was evaluated: boolq: " in evaluate(models / "one", tasks="boolq", code=2)


def test_all_are_those_whose_data_is_there(evaluate: Eval, models: Path) -> None:
    found = json.loads(evaluate(models / "one", "--format", "json", tasks="all"))["results"]
    assert [record["task"] for record in found] == ["blimp"]


def test_a_data_folder_that_is_not_there_is_told(evaluate: Eval, models: Path) -> None:
    assert "is no folder" in evaluate(models / "one", "--data-dir", "nowhere", code=2)


def test_a_run_means_its_last_stage_and_every_phase_all(evaluate: Eval, run: Path, models: Path) -> None:
    def values(*arguments: str) -> list[float]:
        found = json.loads(evaluate(run, "--format", "json", *arguments))["results"]
        return [record["measurements"]["acc"]["value"] for record in found]

    (last,), (first,) = values(), values("--phase", "foundation")
    assert values("--every-phase") == [first, last]
    two = json.loads(evaluate(models / "two", "--format", "json"))["results"][0]
    assert two["cached"] and two["measurements"]["acc"]["value"] == last
    assert "Did you mean 'alignment'?" in evaluate(run, "--phase", "alinment", code=2)


def test_a_stage_is_meant_by_its_folder_its_name_or_its_checkpoint(evaluate: Eval, run: Path, tmp_path: Path) -> None:
    evaluate(run)
    stage = next((tmp_path / "store").glob("alignment-*"))
    for target in (stage, stage.name, stage / "checkpoint"):
        assert "from the cache" in evaluate(target)
    assert len(kept(tmp_path)) == 1


def test_a_damaged_stage_is_not_measured(evaluate: Eval, run: Path, tmp_path: Path) -> None:
    weights = next((tmp_path / "store").glob("alignment-*/checkpoint/model.safetensors"))
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x01")
    assert "is damaged" in evaluate(run, code=2) and not kept(tmp_path)


def test_a_phase_of_what_is_no_run_is_refused(evaluate: Eval, models: Path) -> None:
    assert "is no run" in evaluate(models / "one", "--every-phase", code=2)


def test_any_hugging_face_model_is_measured(evaluate: Eval, models: Path) -> None:
    (found,) = json.loads(evaluate(models / "llama", "--format", "json"))["results"]
    assert found["measurements"]["acc"]["n"] == 2 * PAIRS


def test_pickled_weights_are_refused(evaluate: Eval, models: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(models / "llama", tmp_path / "pickled")
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    assert "only as pickles" in evaluate(folder, code=2)


def test_code_that_comes_with_a_model_is_refused(evaluate: Eval, models: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(models / "llama", tmp_path / "coded")
    config = json.loads((folder / "config.json").read_text())
    del config["architectures"]
    config |= {"model_type": "own", "auto_map": {"AutoConfig": "own.Own", "AutoModelForCausalLM": "own.Model"}}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "own.py").write_text("raise SystemExit('it ran')")
    assert "cannot be read" in evaluate(folder, code=2)


def test_a_hub_model_that_is_not_at_hand_offline_says_what_to_do(evaluate: Eval, run: Path) -> None:
    said = evaluate("someone/some-model", code=2)
    assert "hf download someone/some-model" in said
    assert "Did you mean 'alignment-" in evaluate("alignment-000", code=2)


def test_two_models_are_compared_document_by_document(evaluate: Eval, models: Path) -> None:
    plain = json.loads(evaluate(models / "one", "--compare", str(models / "two"), "--format", "json"))
    ours, theirs = (record["measurements"]["acc"]["value"] for record in plain["results"])
    change = next(one for one in plain["comparisons"][0]["differences"] if one["metric"] == "acc")
    assert change["difference"] == pytest.approx(ours - theirs)
    assert change["low"] <= change["difference"] <= change["high"]
    assert change["n"] == 2 * PAIRS and 0 <= change["p_value"] <= 1
    assert (change["up"] - change["down"]) / change["n"] == pytest.approx(change["difference"])


def test_a_model_is_not_told_from_itself(evaluate: Eval, models: Path) -> None:
    shown = evaluate(models / "one", "--compare", str(models / "one"))
    assert "0 up, 0 down" in shown and "not resolved" in shown.rpartition("over the documents of both")[2]


def test_a_comparison_needs_no_model_once_both_are_measured(
    evaluate: Eval, models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    evaluate(models / "one")
    evaluate(models / "two")
    monkeypatch.setattr(Target, "load", lambda *_: pytest.fail("the model was loaded"))
    assert "over the documents of both" in evaluate(models / "one", "--compare", str(models / "two"))


def test_markdown_is_a_table(evaluate: Eval, models: Path) -> None:
    lines = [line for line in evaluate(models / "one", "--format", "md").splitlines() if line.startswith("|")]
    assert len(lines) == 3 and len({line.count("|") for line in lines}) == 1


def test_lm_evals_index_of_all_tasks_is_never_built(
    evaluate: Eval, models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lm_eval.tasks import TaskManager

    built: list[bool] = []
    original = TaskManager.__init__

    def watched(self: Any, *positional: Any, **named: Any) -> None:
        built.append(named["include_defaults"])
        original(self, *positional, **named)

    monkeypatch.setattr(TaskManager, "__init__", watched)
    evaluate(models / "one", "--fresh")
    assert built and not any(built)
