"""Looking at a run that is done: what its phases changed, what its models say, what its experts are worth."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from phasegate.core.run.comparison import ask_through, experiment_of, find_run, run_of_stage, stages_of
from phasegate.core.run.lineage import Lineage
from phasegate.core.run.store import Store
from phasegate.registry.errors import StoreError

TWO_PHASES = """
name: short
size: nano
model: {hidden_size: 32, num_hidden_layers: 2, num_attention_heads: 2, head_dim: 16, moe_intermediate_size: 16,
        num_experts: 6}
tokenizer: {vocab_size: 500, documents: 200}
data:
  sequence_length: 48
  sources:
    world: {use: microworld, head: 4, rare: 1, contested: 1, unknown: 2, hard: 1, training_documents: 700, chats: 120,
            pairs: 60, heldout_chats: 24, heldout_pairs: 16, needles: 20}
run: {logging_steps: 2, threads: 1}
phases:
  foundation:
    steps: {pretrain: {steps: 4, rows: 4}}
    gates: {knowledge: null, load-low: null, load-high: {at_most: 1.0, documents: 14}, plateau: null}
    policy: {extensions: 0}
  alignment:
    entry: {knowledge: {at_least: 0.0, documents: 8}}
    steps: {sft: {steps: 3, rows: 4, replay: {rows: 2}}, dpo: {steps: 2, rows: 4, replay: {rows: 2}}}
    gates: {format: null, knowledge-kept: null, preference: null, judge: null, domain-entropy-low: null,
            domain-entropy-high: null, general-entropy: null, load-low: null,
            load-high: {at_most: 1.0, documents: 14}}
    policy: {extensions: 0}
"""


def call(*arguments: str) -> int:
    from phasegate.core.cli.app import main

    try:
        main(arguments)
    except SystemExit as stop:
        return int(stop.code or 0)
    return 0


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a finished run of two phases in it."""
    folder = tmp_path_factory.mktemp("home")
    (folder / "short.yaml").write_text(TWO_PHASES, encoding="utf-8")
    where = ("--store", str(folder / "store"), "--runs", str(folder / "runs"))
    assert call("train", str(folder / "short.yaml"), *where, "--gates", "warn") == 0
    return folder


@pytest.fixture
def platform(home: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Run a command on the run's store: exit code, output, errors."""

    def run(command: str, *arguments: str) -> tuple[int, str, str]:
        capsys.readouterr()
        code = call(command, *arguments, "--store", str(home / "store"))
        shown = capsys.readouterr()
        return code, shown.out, shown.err

    return run


def stage(home: Path, phase: str) -> Path:
    (found,) = (home / "store").glob(f"{phase}-*")
    return found


# ---- changes


def test_every_phase_keeps_what_it_changed_in_its_evidence(home: Path) -> None:
    for phase in ("foundation", "alignment"):
        found = json.loads((stage(home, phase) / "evidence" / "changes.json").read_text(encoding="utf-8"))
        assert found["relative"] > 0
        assert {row["role"] for row in found["roles"]} >= {"attention", "embedding", "experts", "norm", "router"}


def test_a_frozen_router_has_not_changed_and_the_evidence_says_so(home: Path) -> None:
    found = json.loads((stage(home, "alignment") / "evidence" / "changes.json").read_text(encoding="utf-8"))
    assert {row["role"]: row["relative"] for row in found["roles"]}["router"] == 0.0


def test_the_models_themselves_say_what_the_evidence_says(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also for the first phase, whose start is built again from the experiment."""
    run = find_run(home / "runs" / "short")
    lineage = Lineage(stages=stages_of(run, Store(home / "store")), source=str(run.experiment))
    recorded = [lineage.changes(place) for place in (0, 1)]
    monkeypatch.setattr("phasegate.core.run.lineage.CHANGES", "nowhere.json")
    assert [lineage.changes(place) for place in (0, 1)] == recorded


def test_changes_shows_every_phase_and_the_directions_of_its_steps(home: Path, platform: Any) -> None:
    code, out, _ = platform("changes", str(home / "runs" / "short"), "--experts")
    assert code == 0
    assert "sft / dpo" in out and "foundation" in out and "alignment" in out
    code, out, _ = platform("changes", str(home / "runs" / "short"), "--layers", "--json")
    found = json.loads(out)
    assert [phase["phase"] for phase in found] == ["foundation", "alignment"]
    assert [[pair["first"], pair["second"]] for phase in found for pair in phase["steps"]] == [["sft", "dpo"]]
    assert found[0]["steps"] == []


# ---- compare


def test_models_before_alignment_continue_text_and_those_after_it_answer(home: Path, platform: Any) -> None:
    run = str(home / "runs" / "short")
    code, out, _ = platform("compare", run, "--prompt", "what is 2 plus 3 ?", "--tokens", "5", "--json")
    assert code == 0
    said = json.loads(out)
    assert [(row["phase"], row["form"]) for row in said] == [
        ("foundation", "continuation"),
        ("foundation", "chat"),
        ("alignment", "chat"),
    ]
    for row in said:
        assert row["measure"] == "max softmax" and 0 < row["confidence"] <= 1
        assert set(row["experts"]) == {"0", "1"}
        assert all(sum(shares.values()) == pytest.approx(1.0, abs=1e-3) for shares in row["experts"].values())


def test_compare_shows_one_table_per_prompt(home: Path, platform: Any) -> None:
    code, out, _ = platform("compare", str(home / "runs" / "short"), "--prompt", "hello", "--prompt", "2 plus 2 is")
    assert code == 0
    assert out.count("ASKED AS") == 2
    assert "hello" in out and "2 plus 2 is" in out


def test_an_answer_is_what_generate_says(home: Path) -> None:
    import torch
    from phasegate.core.model.loading import load_model
    from phasegate.core.model.tokenizer import load_tokenizer

    run = find_run(home / "runs" / "short")
    stages = stages_of(run, Store(home / "store"))
    registry = experiment_of(str(run.experiment))[1].components()
    (said,) = ask_through(stages[1:], ["what is 2 plus 3 ?"], registry, 6)
    checkpoint = stages[1].stage.checkpoint
    model, tokenizer = load_model(checkpoint, registry), load_tokenizer(checkpoint)
    text = tokenizer.apply_chat_template(
        [{"role": "user", "content": "what is 2 plus 3 ?"}], tokenize=False, add_generation_prompt=True
    )
    ids = torch.tensor([tokenizer(text, add_special_tokens=False)["input_ids"]])
    whole = model.generate(input_ids=ids, do_sample=False, max_new_tokens=6)
    assert said.answer == tokenizer.decode(whole[0, ids.shape[1] :], skip_special_tokens=True).strip()


# ---- ablation


@pytest.mark.parametrize("by", ["run", "stage"])
def test_ablation_finds_model_and_data_by_a_run_or_a_stage(home: Path, platform: Any, by: str) -> None:
    target = str(home / "runs" / "short") if by == "run" else stage(home, "alignment").name
    code, out, _ = platform("ablation", target, "--runs", str(home / "runs"), "--documents", "28", "--json")
    assert code == 0
    tables = json.loads(out)
    assert len(tables["single"]) == 12 and len(tables["experts"]) == 6
    assert set(tables["agreement"]) == {"mask"} and "pairs" not in tables


def test_ablation_prints_the_papers_form(home: Path, platform: Any) -> None:
    run = str(home / "runs" / "short")
    options = ("--documents", "28", "--pairs", "--zero", "--phase", "foundation", "--questions", "14")
    code, out, _ = platform("ablation", run, *options)
    assert code == 0
    for text in ("paper's E9", "-5.6 points", "hurt their owner most", "outputs zeroed", "interaction", "14 questions"):
        assert text in out


def test_a_stage_that_no_run_knows_needs_its_data_named(home: Path, platform: Any, tmp_path: Path) -> None:
    name = stage(home, "foundation").name
    code, _, err = platform("ablation", name, "--runs", str(tmp_path / "none"))
    assert code == 2 and "name it with --experiment" in err
    options = ("--experiment", str(home / "short.yaml"), "--documents", "28", "--json")
    code, out, _ = platform("ablation", name, "--runs", str(tmp_path / "none"), *options)
    assert code == 0 and json.loads(out)["layers"] == [0, 1]


def test_a_phase_that_the_run_does_not_have_names_those_it_has(home: Path, platform: Any) -> None:
    code, _, err = platform("ablation", str(home / "runs" / "short"), "--phase", "alignmnt")
    assert code == 2 and "alignment" in err and "foundation" in err


# ---- finding runs


def test_the_newest_run_is_meant_by_the_folder_of_an_experiment(home: Path, tmp_path: Path) -> None:
    (run,) = (home / "runs" / "short").iterdir()
    assert find_run(home / "runs" / "short").path == run == find_run(run).path
    with pytest.raises(StoreError, match="is not a run folder"):
        find_run(tmp_path)


def test_a_stage_leads_to_the_run_that_used_it(home: Path) -> None:
    found = run_of_stage(stage(home, "alignment").name, home / "runs")
    assert found is not None and found.path.parent.name == "short"
    assert run_of_stage("alignment-000000000000", home / "runs") is None


def test_a_store_with_another_stage_of_that_name_is_refused(home: Path, tmp_path: Path) -> None:
    import shutil

    (run,) = (home / "runs" / "short").iterdir()
    copy = tmp_path / "run"
    shutil.copytree(run, copy)
    told = json.loads((copy / "stages.json").read_text(encoding="utf-8"))
    told["stages"][0]["digest"] = "v1:0"
    (copy / "stages.json").write_text(json.dumps(told), encoding="utf-8")
    with pytest.raises(StoreError, match="has another stage"):
        stages_of(find_run(copy), Store(home / "store"))
