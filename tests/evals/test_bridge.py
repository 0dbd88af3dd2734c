"""The bridge to lm-eval: nothing disturbed, documents paired by hash, no cache between model and score."""

from __future__ import annotations

import logging
import math
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from phasegate.evals.bridge import evaluate_folder, finite
from phasegate.evals.packs import write_pack, write_yaml


@pytest.fixture
def rows(questions: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{key: row[key] for key in ("question", "choices", "answer", "domain")} for row in questions]


def values(
    model: Any, tokenizer: Any, folder: Path, rows: list[dict[str, Any]], metric: str = "brier"
) -> dict[str, float]:
    pack = write_pack(folder, "choice", rows)
    found = evaluate_folder(model, tokenizer, pack.folder, [pack.task], batch_size=8)
    return {sample.hash: sample.metrics[metric] for sample in found.samples[pack.task]}


def test_random_streams_and_train_mode_are_left_alone(model: Any, tokenizer: Any, tmp_path: Path, rows: Any) -> None:
    model.train()
    model.model.layers[0].eval()
    random.seed(3)
    np.random.seed(3)
    torch.manual_seed(3)
    expected = (random.random(), np.random.rand(), torch.rand(2).tolist())
    random.seed(3)
    np.random.seed(3)
    torch.manual_seed(3)
    values(model, tokenizer, tmp_path, rows)
    assert (random.random(), np.random.rand(), torch.rand(2).tolist()) == expected
    assert model.training and model.model.layers[1].training
    assert not model.model.layers[0].training


def test_everything_is_restored_after_an_error(model: Any, tokenizer: Any, tmp_path: Path, rows: Any) -> None:
    model.train()
    state = torch.random.get_rng_state()
    level = logging.getLogger("lm_eval").level
    pack = write_pack(tmp_path, "choice", rows)
    with pytest.raises(KeyError, match="no-such-task"):
        evaluate_folder(model, tokenizer, pack.folder, ["no-such-task"])
    assert model.training
    assert torch.equal(torch.random.get_rng_state(), state)
    assert logging.getLogger("lm_eval").level == level


def test_training_can_go_on_after_a_measurement(model: Any, tokenizer: Any, tmp_path: Path, rows: Any) -> None:
    values(model, tokenizer, tmp_path, rows)
    loss = model.train()(input_ids=torch.arange(8)[None], labels=torch.arange(8)[None]).loss
    loss.backward()
    assert model.lm_head.weight.grad is not None


def test_a_tokenizer_without_padding_stays_without(model: Any, tokenizer: Any, tmp_path: Path, rows: Any) -> None:
    pad, side = tokenizer.pad_token, tokenizer.padding_side
    tokenizer.pad_token = None
    try:
        values(model, tokenizer, tmp_path, rows)
        assert tokenizer.pad_token is None
        assert tokenizer.padding_side == side
    finally:
        tokenizer.pad_token = pad


def test_another_model_gets_its_own_scores(
    model: Any, other_model: Any, tokenizer: Any, tmp_path: Path, rows: Any
) -> None:
    first = values(model, tokenizer, tmp_path, rows)
    second = values(other_model, tokenizer, tmp_path, rows)
    again = values(model, tokenizer, tmp_path, rows)
    assert first.keys() == second.keys()
    assert all(first[key] != second[key] for key in first)
    assert first == again


def test_changed_rows_are_seen_at_the_same_place(model: Any, tokenizer: Any, tmp_path: Path, rows: Any) -> None:
    pack = write_pack(tmp_path, "choice", rows)
    evaluate_folder(model, tokenizer, pack.folder, [pack.task])
    data = pack.folder / "rows.jsonl"
    data.write_text(data.read_text(encoding="utf-8").replace("thing", "word"), encoding="utf-8")
    found = evaluate_folder(model, tokenizer, pack.folder, [pack.task])
    assert all("word" in sample.doc["question"] for sample in found.samples[pack.task])


def test_hashes_do_not_depend_on_the_order_of_documents(model: Any, tokenizer: Any, tmp_path: Path, rows: Any) -> None:
    forwards = values(model, tokenizer, tmp_path, rows)
    backwards = values(model, tokenizer, tmp_path, rows[::-1])
    assert forwards.keys() == backwards.keys()
    assert all(forwards[key] == pytest.approx(backwards[key], abs=1e-5) for key in forwards)


def test_the_batch_size_does_not_change_a_score(model: Any, tokenizer: Any, tmp_path: Path, rows: Any) -> None:
    pack = write_pack(tmp_path, "choice", rows)
    one, many = (
        {
            s.hash: s.metrics["brier"]
            for s in evaluate_folder(model, tokenizer, pack.folder, [pack.task], batch_size=size).samples[pack.task]
        }
        for size in (1, 64)
    )
    assert one == pytest.approx(many, abs=1e-5)


def test_copies_of_a_document_count_once(model: Any, tokenizer: Any, tmp_path: Path, rows: Any) -> None:
    pack = write_pack(tmp_path, "choice", [*rows, rows[0], rows[0]])
    samples = evaluate_folder(model, tokenizer, pack.folder, [pack.task]).samples[pack.task]
    assert len(samples) == len(rows)
    assert sorted(sample.copies for sample in samples) == [1] * 11 + [3]


def test_the_mean_of_documents_is_what_lm_eval_reports(model: Any, tokenizer: Any, tmp_path: Path, rows: Any) -> None:
    pack = write_pack(tmp_path, "choice", rows)
    found = evaluate_folder(model, tokenizer, pack.folder, [pack.task])
    for metric in ("acc", "acc_norm", "brier", "probability"):
        mean = sum(sample.metrics[metric] for sample in found.samples[pack.task]) / len(rows)
        assert found.results[pack.task][f"{metric},none"] == pytest.approx(mean)


def test_a_model_of_nan_gets_nan_and_not_the_first_choice(
    model: Any, tokenizer: Any, tmp_path: Path, rows: Any
) -> None:
    with torch.no_grad():
        model.lm_head.weight.fill_(math.nan)
    assert not finite(model)
    assert all(math.isnan(value) for value in values(model, tokenizer, tmp_path, rows, "acc").values())


@pytest.fixture
def heard() -> Iterator[list[logging.LogRecord]]:
    records: list[logging.LogRecord] = []
    handler = logging.Handler()
    handler.emit = records.append  # type: ignore[method-assign]
    logging.getLogger().addHandler(handler)
    yield records
    logging.getLogger().removeHandler(handler)


def test_a_measurement_makes_no_noise(
    model: Any, tokenizer: Any, tmp_path: Path, rows: Any, capfd: pytest.CaptureFixture[str], heard: list[Any]
) -> None:
    values(model, tokenizer, tmp_path, rows)
    pack = write_pack(tmp_path, "perplexity", [{"text": "the cat sat", "tokens": 3, "domain": "general"}])
    evaluate_folder(model, tokenizer, pack.folder, [pack.task])
    printed = capfd.readouterr()
    assert printed.out == "" and printed.err == ""
    assert heard == []


def test_perplexity_is_the_log_likelihood_of_the_text_after_the_end_token(
    model: Any, tokenizer: Any, tmp_path: Path
) -> None:
    text = "the cat sat on a red mat"
    ids = tokenizer(text)["input_ids"]
    pack = write_pack(tmp_path, "perplexity", [{"text": text, "tokens": len(ids), "domain": "general"}])
    (sample,) = evaluate_folder(model, tokenizer, pack.folder, [pack.task]).samples[pack.task]
    with torch.no_grad():
        logits = model.eval()(torch.tensor([[tokenizer.eos_token_id, *ids[:-1]]])).logits[0]
    total = -torch.log_softmax(logits, -1)[torch.arange(len(ids)), ids].sum().item()
    assert sample.metrics["nll"] == pytest.approx(total / len(ids), rel=1e-4)
    assert sample.metrics["bits_per_byte"] == pytest.approx(total / (len(text) * math.log(2)), rel=1e-4)


def test_a_choice_score_is_the_summed_log_likelihood(model: Any, tokenizer: Any, tmp_path: Path, rows: Any) -> None:
    pack = write_pack(tmp_path, "choice", rows[:1])
    (sample,) = evaluate_folder(model, tokenizer, pack.folder, [pack.task]).samples[pack.task]
    context = tokenizer(rows[0]["question"])["input_ids"]
    whole = tokenizer(rows[0]["question"] + " " + rows[0]["choices"][0])["input_ids"]
    with torch.no_grad():
        scores = torch.log_softmax(model.eval()(torch.tensor([whole])).logits[0], -1)
    expected = sum(scores[i - 1, whole[i]].item() for i in range(len(context), len(whole)))
    assert sample.answers[0][0] == pytest.approx(expected, rel=1e-4)


def test_stock_tasks_are_not_indexed(model: Any, tokenizer: Any, tmp_path: Path, rows: Any) -> None:
    """lm-eval's own index costs every process six seconds."""
    pack = write_pack(tmp_path, "choice", rows)
    with pytest.raises(KeyError, match="arc_easy"):
        evaluate_folder(model, tokenizer, pack.folder, ["arc_easy"])


def test_closed_standard_errors_are_kept(model: Any, tokenizer: Any, tmp_path: Path, rows: Any) -> None:
    """``bootstrap_iters=0`` would switch them off."""
    pack = write_pack(tmp_path, "choice", rows)
    found = evaluate_folder(model, tokenizer, pack.folder, [pack.task]).results[pack.task]
    accuracy = found["acc,none"]
    assert found["acc_stderr,none"] == pytest.approx(math.sqrt(accuracy * (1 - accuracy) / (len(rows) - 1)))


def test_few_shot_examples_are_the_same_every_time(model: Any, tokenizer: Any, tmp_path: Path, rows: Any) -> None:
    pack = write_pack(tmp_path, "choice", rows)
    write_yaml(
        pack.folder / "shots.yaml",
        {"include": "task.yaml", "task": "shots", "num_fewshot": 2, "fewshot_config": {"split": "test"}},
    )
    first, again = (
        evaluate_folder(model, tokenizer, pack.folder, ["shots"], max_length=256).samples["shots"] for _ in range(2)
    )
    other = evaluate_folder(model, tokenizer, pack.folder, ["shots"], max_length=256, seed=1).samples["shots"]
    assert [s.answers for s in first] == [s.answers for s in again]
    assert [s.answers for s in first] != [s.answers for s in other]
