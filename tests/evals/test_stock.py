"""Stock tasks on local copies: the same documents, prompts and metrics as the stock file makes."""

from __future__ import annotations

import gzip
import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from phasegate.evals.bridge import evaluate_folder
from phasegate.evals.stock import stock_folder, write_stock
from phasegate.evals.stock_tasks import STOCK
from phasegate.registry.errors import ConfigError, DataError

MEMBERS = {"blimp": "transitive", "mmlu": "anatomy"}
PAIRS = {
    "transitive": [("the cat saw a mat", "the cat slept a mat"), ("a fish ate it", "a fish rained it")],
    "passive_1": [("a mat was seen", "a mat was slept"), ("the fish was eaten", "the fish was rained")],
}


@pytest.fixture
def local(tmp_path: Path) -> Path:
    """Lines as in BLiMP's own files, which say pairID where the hub's rows say pair_id."""
    lines = [
        {
            "UID": uid,
            "pairID": str(i),
            "field": "syntax",
            "linguistics_term": "argument_structure",
            "sentence_good": good,
            "sentence_bad": bad,
            "simple_LM_method": True,
            "one_prefix_method": False,
            "two_prefix_method": False,
            "lexically_identical": False,
        }
        for uid, pairs in PAIRS.items()
        for i, (good, bad) in enumerate(pairs)
    ]
    path = tmp_path / "blimp.jsonl.gz"
    path.write_bytes(gzip.compress("\n".join(map(json.dumps, lines)).encode()))
    return path


def stock_like(tmp_path: Path, local: Path) -> Path:
    """The stock file itself over rows in the hub's shape, as lm-eval's own json loader reads them."""
    hub = tmp_path / "hub.jsonl"
    rows = [json.loads(line) for line in gzip.decompress(local.read_bytes()).splitlines()]
    kept = [{k: v for k, v in row.items() if k != "pairID"} | {"pair_id": int(row["pairID"])} for row in rows]
    hub.write_text("\n".join(json.dumps(row) for row in kept if row["UID"] == "transitive"), encoding="utf-8")
    folder = tmp_path / "stock"
    folder.mkdir()
    template = yaml.safe_load((stock_folder() / "blimp" / "_template_yaml").read_text(encoding="utf-8"))
    template |= {
        "task": "blimp_transitive",
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"train": str(hub)}, "cache_dir": str(tmp_path / "cache")},
    }
    (folder / "task.yaml").write_text(yaml.safe_dump(template), encoding="utf-8")
    return folder


def load(folder: Path, name: str) -> Any:
    from lm_eval.tasks import TaskManager

    return TaskManager(include_path=[str(folder)], include_defaults=False).load([name])["tasks"][name]


def test_documents_render_as_the_stock_file_renders_them(tmp_path: Path, local: Path) -> None:
    ours = load(write_stock(tmp_path, "blimp", local).folder, "blimp_transitive")
    stock = load(stock_like(tmp_path, local), "blimp_transitive")

    def rendered(task: Any) -> set[tuple[Any, ...]]:
        return {
            (task.fewshot_context(doc, 0), tuple(task.doc_to_choice(doc)), task.doc_to_target(doc))
            for doc in task.eval_docs
        }

    assert rendered(ours) == rendered(stock)
    assert rendered(ours) == {("", pair, 0) for pair in PAIRS["transitive"]}


def test_rows_have_the_fields_of_the_hub(tmp_path: Path, local: Path) -> None:
    ours = load(write_stock(tmp_path, "blimp", local).folder, "blimp_transitive")
    stock = load(stock_like(tmp_path, local), "blimp_transitive")
    assert sorted(ours.eval_docs.features) == sorted(stock.eval_docs.features)


def test_only_the_data_source_differs_from_the_stock_file(tmp_path: Path, local: Path) -> None:
    ours = load(write_stock(tmp_path, "blimp", local).folder, "blimp_transitive").dump_config()
    stock = load(stock_like(tmp_path, local), "blimp_transitive").dump_config()
    differing = {key for key in ours.keys() | stock.keys() if ours.get(key) != stock.get(key)}
    assert differing <= {"custom_dataset", "dataset_path", "dataset_name", "dataset_kwargs", "metadata"}


def test_every_member_of_the_local_copy_becomes_a_task(tmp_path: Path, local: Path) -> None:
    pack = write_stock(tmp_path, "blimp", local)
    assert pack.tasks == {"passive_1": "blimp_passive_1", "transitive": "blimp_transitive"}
    assert pack.rows == {"passive_1": 2, "transitive": 2}


def test_documents_are_spread_evenly_over_members(tmp_path: Path, local: Path) -> None:
    assert write_stock(tmp_path, "blimp", local, documents=2).rows == {"passive_1": 1, "transitive": 1}


def test_accuracy_is_the_share_of_pairs_with_the_likelier_good_sentence(
    model: Any, tokenizer: Any, tmp_path: Path, local: Path
) -> None:
    pack = write_stock(tmp_path, "blimp", local)
    found = evaluate_folder(model, tokenizer, pack.folder, ["blimp_transitive"])

    def total(text: str) -> float:
        ids = tokenizer(text)["input_ids"]
        with torch.no_grad():
            scores = torch.log_softmax(model.eval()(torch.tensor([[1, *ids]])).logits[0], -1)
        return sum(scores[i, token].item() for i, token in enumerate(ids))

    for sample in found.samples["blimp_transitive"]:
        better = total(" " + sample.doc["sentence_good"]) > total(" " + sample.doc["sentence_bad"])
        assert sample.metrics["acc"] == float(better)


def test_a_broken_model_does_not_win_because_the_good_sentence_is_first(
    model: Any, tokenizer: Any, tmp_path: Path, local: Path
) -> None:
    with torch.no_grad():
        model.lm_head.weight.fill_(math.nan)
    pack = write_stock(tmp_path, "blimp", local)
    found = evaluate_folder(model, tokenizer, pack.folder, ["blimp_transitive"])
    assert found.results["blimp_transitive"]["acc,none"] == 1.0
    assert all(math.isnan(sample.metrics["acc"]) for sample in found.samples["blimp_transitive"])


def test_the_table_names_files_that_lm_eval_has() -> None:
    assert all((stock_folder() / task.stock.format(MEMBERS.get(name, ""))).is_file() for name, task in STOCK.items())


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"gone\.gz"):
        write_stock(tmp_path, "blimp", tmp_path / "gone.gz")


def test_an_unknown_task_gets_the_nearest_name(tmp_path: Path, local: Path) -> None:
    with pytest.raises(ConfigError, match="Did you mean 'blimp'"):
        write_stock(tmp_path, "blimb", local)


def test_an_unknown_member_gets_the_nearest_name(tmp_path: Path, local: Path) -> None:
    with pytest.raises(ConfigError, match="Did you mean 'transitive'"):
        write_stock(tmp_path, "blimp", local, ("transitiv",))
