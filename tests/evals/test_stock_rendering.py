"""Every stock task on a local copy asks what the unmodified stock task asks of the hub's rows."""

from __future__ import annotations

import importlib
import importlib.util
import json
import random
from pathlib import Path
from typing import Any

import pytest
from phasegate.evals.bridge import load_tasks
from phasegate.evals.processing import read_jsonl
from phasegate.evals.stock import stock_config, stock_folder, stock_members, write_stock
from phasegate.evals.stock_tasks import STOCK

_SPEC = importlib.util.spec_from_file_location("phasegate_stock_copies", Path(__file__).parent / "stock_copies.py")
assert _SPEC is not None and _SPEC.loader is not None
copies = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(copies)

SHARED = Path(__file__).parents[3] / "shared" / "data"
DATA_KEYS = {"custom_dataset", "dataset_path", "dataset_name", "dataset_kwargs", "metadata"}


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """What two stock tasks fetch when they are imported: a metric, and a sentence splitter."""
    evaluate = importlib.import_module("evaluate")
    monkeypatch.setattr(evaluate, "load", lambda _name: type("Metric", (), {"compute": lambda self, **_: ({}, {})})())
    if importlib.util.find_spec("nltk") is not None:
        monkeypatch.setattr(importlib.import_module("nltk"), "download", lambda _name: True)


def needs(name: str) -> None:
    if STOCK[name].needs == "ifeval":
        for package in ("immutabledict", "langdetect", "nltk"):
            pytest.importorskip(package)


def hub_rows(name: str, rows: list[Any], member: str) -> list[Any]:
    task = STOCK[name]
    made = [task.fields(row) for row in rows if task.member is None or row[task.member] == member]
    return [row for row in made if row is not None]


def stock(monkeypatch: pytest.MonkeyPatch, name: str, member: str, rows: list[Any], shown: list[Any]) -> Any:
    """lm-eval's own task from its own folder, with the hub answering ``rows``."""
    import datasets

    task = STOCK[name]
    given = datasets.Dataset.from_list(hub_rows(name, rows, member))
    splits = dict.fromkeys(("train", "validation", "test", "dev"), given.select([])) | {task.split: given}
    if shown:
        splits[task.examples_split] = datasets.Dataset.from_list(hub_rows(name, shown, member))
    asked: list[Any] = []
    monkeypatch.setattr(datasets, "load_dataset", lambda path, **_kwargs: asked.append(path) or splits)
    found = load_tasks((stock_folder() / task.stock).parent, [task.name.format(member)])
    assert asked == [task.hub]
    return found["tasks"][task.name.format(member)]


def requests(task: Any) -> dict[str, Any]:
    """All that the model is asked, and what is expected of it, by document: order is not the data's matter.

    Few-shot examples are drawn anew for each document, as if it were the first.
    """
    shots = task.get_config("num_fewshot") or 0
    found = {}
    for doc in task.eval_docs:
        task.set_fewshot_seed(1234)
        context = task.fewshot_context(doc, shots)
        made = task.construct_requests(doc, context, metadata=(task.task_name, 0, 1))
        made = made if isinstance(made, list) else [made]
        choices = task.doc_to_choice(doc) if task.get_config("doc_to_choice") is not None else None
        found[json.dumps([one.args for one in made], sort_keys=True)] = (
            [one.args for one in made],
            choices,
            task.doc_to_target(doc),
        )
    return found


def both(
    monkeypatch: pytest.MonkeyPatch, folder: Path, name: str, rows: list[Any], shown: list[Any]
) -> tuple[Any, Any]:
    task = STOCK[name]
    member = str(rows[0][task.member]) if task.member else name
    copies.write_copies(folder, [name])  # for the examples
    path = folder / "rows.jsonl"
    copies._write(folder / "rows.jsonl.gz", rows)
    examples = None
    if shown:
        copies._write(folder / "shown.jsonl.gz", shown)
        examples = folder / "shown.jsonl.gz"
    pack = write_stock(folder, name, path.with_suffix(".jsonl.gz"), examples=examples)
    ours = load_tasks(pack.folder, [pack.tasks[member]])["tasks"][pack.tasks[member]]
    return ours, stock(monkeypatch, name, member, rows, shown)


@pytest.mark.parametrize("name", STOCK)
def test_ten_documents_render_as_stock(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    needs(name)
    ours, theirs = both(monkeypatch, tmp_path, name, copies.COPIES[name], copies.EXAMPLES.get(name, []))
    assert requests(ours) == requests(theirs)
    # PubMed's last row is not of the official test split; the groups' first members have a part of the rows.
    assert len(requests(ours)) == {"pubmedqa": 9, "blimp": 5, "mmlu": 2}.get(name, 10)


@pytest.mark.parametrize("name", STOCK)
def test_only_data_keys_differ_from_stock(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    needs(name)
    ours, theirs = both(monkeypatch, tmp_path, name, copies.COPIES[name], copies.EXAMPLES.get(name, []))
    mine, stocks = ours.dump_config(), theirs.dump_config()
    differing = {key for key in mine.keys() | stocks.keys() if mine.get(key) != stocks.get(key)}
    # HumanEval's own functions load a metric from the hub; ours stand in for them under the same names.
    assert differing <= DATA_KEYS | ({"metric_list", "filter_list"} if name == "humaneval" else set())
    assert mine["metadata"]["version"] == stocks["metadata"]["version"]


@pytest.mark.parametrize("name", STOCK)
@pytest.mark.skipif(not SHARED.is_dir(), reason="the shared data is not beside this checkout")
def test_ten_documents_of_the_shared_data_render_as_stock(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    needs(name)
    task = STOCK[name]
    if not (SHARED / task.file).is_file():
        pytest.skip(f"{task.file} is not in the shared data")
    rows = [row for row in read_jsonl(SHARED / task.file) if task.fields(row) is not None]
    if task.member is not None:
        rows = [row for row in rows if row[task.member] == rows[-1][task.member]]
    shown = read_jsonl(SHARED / task.examples) if task.examples else []
    if task.member is not None:
        shown = [row for row in shown if row[task.member] == rows[0][task.member]]
    ours, theirs = both(monkeypatch, tmp_path, name, random.Random(0).sample(rows, 10), shown)
    assert requests(ours) == requests(theirs)
    assert len(requests(ours)) == 10


EXPECTED: dict[str, tuple[str, Any, Any]] = {
    "arc_easy": ("Question: What sat 0?\nAnswer:", ["the cat 0", "a red mat", "one small fish", "the old town"], 0),
    "boolq": ("The cat 0 sat.\nQuestion: On a mat?\nQuestion: did the cat 0 sit?\nAnswer:", ["no", "yes"], 0),
    "hellaswag": (
        "Sitting: Sit down. Stay there 0 times.",
        ["the cat 0 again.", "a red mat again.", "one small fish again.", "the old town again."],
        0,
    ),
    "humaneval": (
        'def plus(a):\n    """Return a + 0."""\n',
        None,
        "\ndef check(candidate):\n    assert candidate(1) == 1\n\ncheck(plus)",
    ),
    "lambada_openai": ("The cat 0 sat on the", None, " mat"),
    "mmlu": (
        "The following are multiple choice questions (with answers) about virology.\n\n"
        "What sat 0?\nA. the cat 0\nB. a red mat\nC. one small fish\nD. the old town\nAnswer:",
        ["A", "B", "C", "D"],
        0,
    ),
    "openbookqa": ("Cat 0 sat on", ["the cat 0", "a red mat", "one small fish", "the old town"], 0),
    "pubmedqa": (
        "Abstract: Cats.\nThey sat 0 times.\nQuestion: Do 0 cats sit?\nAnswer:",
        ["yes", "no", "maybe"],
        "yes",
    ),
}


@pytest.mark.parametrize("name", EXPECTED)
def test_a_document_reads_as_published(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ours, _ = both(monkeypatch, tmp_path, name, copies.COPIES[name], [])
    context, choices, target = EXPECTED[name]
    docs = [doc for doc in ours.eval_docs if ours.fewshot_context(doc, 0) == context]
    assert len(docs) == 1
    assert ours.doc_to_target(docs[0]) == target
    assert choices is None or ours.doc_to_choice(docs[0]) == choices


def test_a_context_that_ends_within_a_sentence_goes_on_with_a_capital(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours, _ = both(monkeypatch, tmp_path, "hellaswag", copies.COPIES["hellaswag"], [])
    assert "Sitting: A cat is seen. It sits 1 times. The cat" in {ours.doc_to_text(doc) for doc in ours.eval_docs}


def test_the_two_sentences_of_winogrande_end_alike(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ours, _ = both(monkeypatch, tmp_path, "winogrande", copies.COPIES["winogrande"], [])
    asked = {args for one in requests(ours).values() for args in one[0]}
    assert ("The cat 0 left the mat because the cat", " was old.") in asked
    assert ("The cat 0 left the mat because the mat", " was old.") in asked


def test_five_examples_stand_before_a_problem_of_gsm8k(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ours, _ = both(monkeypatch, tmp_path, "gsm8k", copies.COPIES["gsm8k"], copies.EXAMPLES["gsm8k"])
    for args, _, _ in requests(ours).values():
        assert args[0][0].count("####") == 5
        assert args[0][1]["until"] == ["Question:", "</s>", "<|im_end|>"]


def test_examples_of_mmlu_are_the_first_of_the_subject(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ours, theirs = both(monkeypatch, tmp_path, "mmlu", copies.COPIES["mmlu"], copies.EXAMPLES["mmlu"])
    for task in (ours, theirs):
        task.set_config("num_fewshot", 5)
    assert requests(ours) == requests(theirs)
    assert all(args[0][0].count("Answer:") == 6 for args, _, _ in requests(ours).values())


@pytest.mark.parametrize("name", STOCK)
def test_the_table_names_the_stock_data(name: str) -> None:
    task = STOCK[name]
    config = stock_config(task, (stock_members(task) or ("",))[0])
    assert config["dataset_path"] == task.hub
    assert task.split == (config.get("test_split") or config.get("validation_split"))
    assert (task.needs == "code") == bool(config.get("unsafe_code"))
    if task.examples is not None:
        assert task.examples_split == config["fewshot_split"]


def test_lm_eval_has_all_members_of_the_groups() -> None:
    assert len(stock_members(STOCK["mmlu"])) == 57
    assert len(stock_members(STOCK["blimp"])) == 67
