"""Benchmarks by name: what is measured, with what, and what is said where something is missing."""

from __future__ import annotations

import gzip
import importlib.util
import json
import math
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from phasegate.evals.benchmarks import (
    BenchmarkRequest,
    BenchmarkResult,
    benchmark,
    benchmark_names,
    plan_benchmark,
    run_benchmark,
)
from phasegate.evals.stock import places, shares
from phasegate.evals.stock_tasks import STOCK
from phasegate.registry.errors import ConfigError

_SPEC = importlib.util.spec_from_file_location("phasegate_stock_copies", Path(__file__).parent / "stock_copies.py")
assert _SPEC is not None and _SPEC.loader is not None
copies = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(copies)

CHOICES = [name for name in STOCK if STOCK[name].needs is None and name != "gsm8k"]


@pytest.fixture
def ask(model: Any, tokenizer: Any, tmp_path: Path) -> Callable[..., BenchmarkResult]:
    copies.write_copies(tmp_path / "data")
    model.generation_config.eos_token_id = list(range(320))  # one new token is enough

    def run(task: str, **changes: Any) -> BenchmarkResult:
        settings: dict[str, Any] = {"root": tmp_path / "data", "folder": tmp_path / "packs", "batch_size": 8}
        return run_benchmark(model, tokenizer, BenchmarkRequest(task=task, **(settings | changes)))

    return run


@pytest.mark.parametrize("name", CHOICES)
def test_every_benchmark_gives_its_own_metrics_and_counts(ask: Any, name: str) -> None:
    found = ask(name)
    assert found.missing is None
    assert set(STOCK[name].metrics) <= set(found.measurements)
    for metric in STOCK[name].metrics:
        one = found.measurements[metric]
        assert math.isfinite(one.value)
        assert one.n == found.data["rows"] == (9 if name == "pubmedqa" else 10)


@pytest.mark.parametrize(
    ("name", "chance"),
    [
        ("arc_easy", 0.25),
        ("boolq", 0.5),
        ("pubmedqa", 1 / 3),
        ("winogrande", 0.5),
        ("mmlu", 0.25),
        ("lambada_openai", None),
        # two, three and four choices in turn: (4 / 2 + 3 / 3 + 3 / 4) / 10
        ("truthfulqa_mc1", 0.375),
        # one of four true, then two of four
        ("truthfulqa_mc2", 0.375),
    ],
)
def test_chance_comes_from_the_choices(ask: Any, name: str, chance: float | None) -> None:
    found = ask(name).measurements["acc"].chance
    assert found == (None if chance is None else pytest.approx(chance))


def test_data_is_named_with_its_digest_and_what_part_it_is(ask: Any, tmp_path: Path) -> None:
    import hashlib

    found = ask("arc_easy")
    content = (tmp_path / "data" / "evals" / "arc_easy.jsonl.gz").read_bytes()
    assert found.data["file"] == "evals/arc_easy.jsonl.gz"
    assert found.data["sha256"] == hashlib.sha256(content).hexdigest()
    assert found.data["subset"] == "10 of 2,376 documents of the official test split"
    assert "lm_eval" in found.versions


def test_a_group_weighted_by_size_is_the_share_of_its_documents(ask: Any) -> None:
    """Subjects of eight and two questions: lm-eval's score of MMLU is that of the ten."""
    found = ask("mmlu").measurements
    sizes = {"anatomy": 8, "virology": 2}
    assert {name: found[f"acc/{name}"].n for name in sizes} == sizes
    right = sum(found[f"acc/{name}"].value * size for name, size in sizes.items())
    assert found["acc"].value == pytest.approx(right / 10)
    assert found["acc"].n == 10
    assert len(found["acc"].per_document) == 10


def test_parts_of_mmlu_have_the_names_of_lm_evals_groups(ask: Any) -> None:
    found = ask("mmlu").measurements
    assert found["acc/stem"].value == found["acc/anatomy"].value
    assert found["acc/other"].value == found["acc/virology"].value


def test_mmlu_can_be_asked_with_examples(ask: Any) -> None:
    plain, shown = ask("mmlu"), ask("mmlu", fewshot=5)
    assert shown.missing is None
    assert plain.config != shown.config
    assert shown.data["examples"] == "evals/mmlu/dev.jsonl.gz"
    assert "examples" not in plain.data


def test_gsm8k_generates_and_reads_both_filters(ask: Any) -> None:
    found = ask("gsm8k", documents=2)
    assert set(found.measurements) == {"exact_match,strict-match", "exact_match,flexible-extract"}
    assert found.measurements["exact_match,strict-match"].n == 2
    assert found.measurements["exact_match,strict-match"].chance is None


def test_perplexity_is_that_of_the_mean_log_likelihood_and_lies_in_its_interval(ask: Any, tmp_path: Path) -> None:
    found = ask("lambada_openai").measurements["perplexity"]
    answers = [json.loads(line) for line in (tmp_path / "packs" / "answers-lambada_openai.jsonl").open()]
    mean = sum(answer["metrics"]["perplexity"] for answer in answers) / len(answers)
    assert found.value == pytest.approx(math.exp(-mean))
    assert found.interval is not None and found.interval[0] < found.value < found.interval[1]


def test_documents_are_capped_the_same_way_each_time_and_a_larger_cap_holds_the_smaller(ask: Any) -> None:
    four = ask("arc_easy", documents=4).measurements["acc"].per_document
    assert len(four) == 4
    assert ask("arc_easy", documents=4).measurements["acc"].per_document == four
    assert ask("arc_easy", documents=7).measurements["acc"].per_document.items() > four.items()


def test_documents_of_a_weighted_group_come_by_size() -> None:
    sizes = {"a": 80, "b": 10, "c": 10}
    assert shares(sizes, 10, weighted=True) == {"a": 8, "b": 1, "c": 1}
    assert shares(sizes, 1000, weighted=True) == sizes
    smaller, larger = shares(sizes, 13, weighted=True), shares(sizes, 14, weighted=True)
    assert all(larger[name] >= count for name, count in smaller.items())


def test_documents_of_other_groups_come_evenly() -> None:
    assert shares({"a": 80, "b": 10}, 10, weighted=False) == {"a": 5, "b": 5}
    assert shares({"a": 80, "b": 10}, 1, weighted=False) == {"a": 1, "b": 1}


def test_places_are_sorted_and_do_not_hang_on_the_order_of_documents() -> None:
    docs = [{"n": i} for i in range(20)]
    chosen = places(docs, 5)
    assert chosen == sorted(chosen)
    shuffled = random.Random(0).sample(docs, 20)
    assert {docs[i]["n"] for i in chosen} == {shuffled[i]["n"] for i in places(shuffled, 5)}


def test_a_missing_file_is_named_and_has_no_score(ask: Any, tmp_path: Path) -> None:
    found = ask("hellaswag", root=tmp_path / "elsewhere")
    assert found.measurements == {}
    assert found.missing is not None
    assert "evals/hellaswag/validation_part.jsonl.gz" in found.missing
    assert "Rowan/hellaswag" in found.missing


@pytest.mark.parametrize("name", ["arc_easy", "mmlu", "gsm8k"])
def test_offline_the_hub_is_missing_with_both_ways_out(ask: Any, name: str) -> None:
    found = ask(name, root=None)
    assert found.measurements == {}
    assert found.missing is not None
    assert STOCK[name].hub in found.missing
    assert "--data-dir" in found.missing and "while online" in found.missing


@pytest.mark.parametrize("name", ["arc_easy", "mmlu", "hellaswag"])
@pytest.mark.parametrize("documents", [None, 4])
def test_the_hub_gives_what_a_copy_of_it_gives(
    ask: Any, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], name: str, documents: int | None
) -> None:
    import datasets

    local = ask(name, documents=documents, subtasks=("anatomy", "virology") if name == "mmlu" else ())

    def load(path: str, name_: str | None = None, **kwargs: Any) -> Any:
        wanted = kwargs.get("name", name_)
        task = STOCK[name]
        assert path == task.hub
        rows = [task.fields(row) for row in copies.COPIES[name] if task.member is None or row[task.member] == wanted]
        given = datasets.Dataset.from_list([row for row in rows if row is not None])
        empty = given.select([])
        return dict.fromkeys(("train", "validation", "test", "dev"), empty) | {task.split: given}

    monkeypatch.setattr(datasets, "load_dataset", load)
    found = ask(name, root=None, documents=documents, subtasks=("anatomy", "virology") if name == "mmlu" else ())
    assert found.missing is None
    assert found.data["dataset"] == STOCK[name].hub
    assert found.config == local.config
    assert capfd.readouterr() == ("", "")
    if documents is None:  # a cap may draw others: the hub's rows have more fields
        assert found.measurements["acc"].value == local.measurements["acc"].value
    assert found.measurements["acc"].n == local.measurements["acc"].n


def test_an_unknown_benchmark_gets_the_nearest_name() -> None:
    with pytest.raises(ConfigError, match="Did you mean 'hellaswag'"):
        benchmark("helaswag")
    with pytest.raises(ConfigError, match="known are advbench"):
        benchmark("zzz")


def test_an_unknown_member_gets_the_nearest_name(ask: Any) -> None:
    with pytest.raises(ConfigError, match="Did you mean 'anatomy'"):
        ask("mmlu", subtasks=("anatomi",))


def test_examples_that_are_not_there_are_refused(ask: Any) -> None:
    with pytest.raises(ConfigError, match="no local few-shot examples"):
        ask("arc_easy", fewshot=5)


def test_lambada_is_another_name_of_lm_evals_task(ask: Any) -> None:
    assert benchmark("lambada") is benchmark("lambada_openai")
    assert ask("lambada").task == "lambada_openai"


def test_names_are_sorted_and_all_known() -> None:
    assert list(benchmark_names()) == sorted(benchmark_names())
    assert {"arc_challenge", "gsm8k", "humaneval", "ifeval", "mmlu", "xstest"} <= set(benchmark_names())


def test_a_plan_needs_no_model_and_agrees_with_the_result(ask: Any, tmp_path: Path) -> None:
    request = BenchmarkRequest(task="boolq", root=tmp_path / "data", folder=tmp_path / "packs")
    plan, found = plan_benchmark(request), ask("boolq")
    assert (plan.config, plan.versions) == (found.config, found.versions)
    assert plan.data.items() <= found.data.items()


def test_the_configuration_changes_with_the_examples_and_not_with_the_documents(tmp_path: Path) -> None:
    copies.write_copies(tmp_path, ["mmlu"])

    def config(**changes: Any) -> str:
        return plan_benchmark(BenchmarkRequest(task="mmlu", root=tmp_path, folder=tmp_path, **changes)).config

    assert config() == config(documents=3) == config(fewshot=0)
    assert config() != config(fewshot=1)
    assert config() != config(subtasks=("anatomy",))


def test_a_broken_model_has_no_score(ask: Any, model: Any) -> None:
    with torch.no_grad():
        model.lm_head.weight.fill_(math.nan)
    found = ask("arc_easy")
    assert found.measurements == {} and found.missing is not None and "finite" in found.missing


def test_nothing_is_left_changed(ask: Any, model: Any) -> None:
    model.train()
    random.seed(5)
    torch.manual_seed(5)
    expected = (random.random(), torch.rand(1).item())
    random.seed(5)
    torch.manual_seed(5)
    ask("gsm8k", documents=1)
    assert (random.random(), torch.rand(1).item()) == expected
    assert model.training


def test_nothing_is_printed(ask: Any, capfd: pytest.CaptureFixture[str]) -> None:
    ask("hellaswag")
    ask("lambada_openai")
    assert capfd.readouterr() == ("", "")


def test_a_damaged_copy_is_missing(ask: Any, tmp_path: Path) -> None:
    path = tmp_path / "data" / "evals" / "boolq.jsonl.gz"
    path.write_bytes(gzip.compress(b'{"other": 1}\n'))
    found = ask("boolq")
    assert found.missing is not None and "boolq.jsonl.gz" in found.missing and "KeyError" in found.missing


def test_texts_longer_than_the_model_was_trained_with_are_scored_whole(ask: Any) -> None:
    short, long = ask("truthfulqa_mc1", max_length=8), ask("truthfulqa_mc1", max_length=4096)
    assert short.measurements["acc"].per_document == long.measurements["acc"].per_document
    assert short.data["longer"] == sum(2 + i % 3 for i in range(10))
    assert "longer" not in long.data


def test_generation_leaves_room_for_the_answer(ask: Any) -> None:
    """lm-eval stops where a context length is shorter than the answers may be."""
    assert ask("gsm8k", documents=1, max_length=16).missing is None


def test_a_table_of_positions_is_not_read_past_its_end(tokenizer: Any, tmp_path: Path) -> None:
    from transformers import GPT2Config, GPT2LMHeadModel

    copies.write_copies(tmp_path, ["boolq", "gsm8k"])
    long = {"sentence": f"_ was {'old ' * 40}", "option1": "a cat", "option2": "a mat", "answer": "1"}
    copies._write(tmp_path / STOCK["winogrande"].file, [long])
    model = GPT2LMHeadModel(GPT2Config(vocab_size=320, n_positions=32, n_embd=16, n_layer=1, n_head=2))
    found = {
        name: run_benchmark(
            model, tokenizer, BenchmarkRequest(task=name, root=tmp_path, folder=tmp_path / "packs", documents=1)
        )
        for name in ("boolq", "gsm8k", "winogrande")
    }
    assert found["boolq"].missing is None and found["boolq"].data["longer"] == 2
    assert found["gsm8k"].missing is not None and "32 positions" in found["gsm8k"].missing
    assert found["winogrande"].missing is not None and "answers longer" in found["winogrande"].missing


def test_task_files_name_their_data_absolutely(ask: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """lm-eval looks for relative data from the working directory, not from the task file."""
    import yaml

    monkeypatch.chdir(tmp_path)
    assert ask("gsm8k", folder=Path("packs"), documents=1).missing is None
    text = (tmp_path / "packs" / "stock-gsm8k" / "gsm8k.yaml").read_text().replace("!function", "")
    config = yaml.safe_load(text)
    assert Path(config["include"]).is_absolute()
    assert all(Path(config["dataset_kwargs"][key]).is_absolute() for key in ("path", "examples"))


def test_documents_selected_in_any_order_keep_their_own_answers(model: Any, tokenizer: Any, tmp_path: Path) -> None:
    from phasegate.evals.bridge import evaluate_tasks, load_tasks
    from phasegate.evals.stock import write_stock

    copies.write_copies(tmp_path, ["arc_easy"])
    pack = write_stock(tmp_path, "arc_easy", tmp_path / STOCK["arc_easy"].file)

    def asked(select: Any) -> dict[str, Any]:
        loaded = load_tasks(pack.folder, ["arc_easy"])
        found = evaluate_tasks(model, tokenizer, loaded, select=select).samples["arc_easy"]
        return {one.doc["question"]: one.answers for one in found}

    everything, some = asked(None), asked(lambda _name, _docs: [7, 2, 5])
    assert len(some) == 3
    assert all(everything[question] == answers for question, answers in some.items())


def test_a_whole_group_of_the_hub_is_asked_without_lm_evals_index(ask: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The index of all tasks costs seconds: no folder but the task's own may be looked at."""
    from lm_eval.tasks import TaskManager

    built: list[Any] = []
    start = TaskManager.__init__

    def spy(self: Any, *args: Any, **kwargs: Any) -> None:
        built.append(kwargs)
        start(self, *args, **kwargs)

    monkeypatch.setattr(TaskManager, "__init__", spy)
    ask("mmlu", root=None)
    ask("mmlu")
    assert [kwargs["include_defaults"] for kwargs in built] == [False, False]
    assert [Path(kwargs["include_path"][0]).name for kwargs in built] == ["default", "stock-mmlu"]


def test_humaneval_loads_without_the_metric_that_stock_fetches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import evaluate
    from phasegate.evals.bridge import load_tasks
    from phasegate.evals.stock import write_stock

    def fetch(_name: str) -> Any:
        raise ConnectionError("offline")

    monkeypatch.setattr(evaluate, "load", fetch)
    copies.write_copies(tmp_path, ["humaneval"])
    pack = write_stock(tmp_path, "humaneval", tmp_path / STOCK["humaneval"].file)
    assert set(load_tasks(pack.folder, ["humaneval"])["tasks"]) == {"humaneval"}


@pytest.mark.parametrize("name", ["documents", "batch_size", "max_length"])
def test_numbers_below_one_are_refused(ask: Any, name: str) -> None:
    with pytest.raises(ConfigError, match=f"{name} 0: give at least 1"):
        ask("boolq", **{name: 0})


def test_a_file_cut_off_is_missing(ask: Any, tmp_path: Path) -> None:
    path = tmp_path / "data" / "evals" / "boolq.jsonl.gz"
    path.write_bytes(path.read_bytes()[:-40])
    found = ask("boolq")
    assert found.missing is not None and "fetch the file again" in found.missing
