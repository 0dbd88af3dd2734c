"""Task packs: what is written, and what lm-eval makes of it."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import yaml
from phasegate.evals.bridge import evaluate_folder
from phasegate.evals.packs import choose, choose_evenly, write_pack
from phasegate.evals.processing import checked_format, choice, judged, perplexity, preference
from phasegate.registry.errors import DataError


def plain_yaml(path: Path) -> dict[str, Any]:
    class Loader(yaml.SafeLoader):
        pass

    Loader.add_constructor("!function", lambda loader, node: f"function {loader.construct_scalar(node)}")
    return dict(yaml.load(path.read_text(encoding="utf-8"), Loader=Loader))


ROWS = [{"question": "1 + 1 =", "choices": ["2", "3"], "answer": 0, "domain": "maths", "kind": "head"}]


def test_paths_are_absolute_wherever_the_folder_was_given_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    pack = write_pack(Path("evidence"), "choice", ROWS)
    written = plain_yaml(pack.folder / "task.yaml")
    assert Path(written["dataset_kwargs"]["path"]).is_absolute()
    assert pack.folder.is_absolute()


def test_functions_are_named_by_their_installed_module(tmp_path: Path) -> None:
    pack = write_pack(tmp_path, "choice", ROWS)
    written = plain_yaml(pack.folder / "task.yaml")
    assert written["process_results"] == "function phasegate.evals.processing.choice"


def test_the_same_rows_go_to_the_same_place(tmp_path: Path) -> None:
    assert write_pack(tmp_path, "choice", ROWS) == write_pack(tmp_path, "choice", ROWS)


def test_no_rows_are_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no rows"):
        write_pack(tmp_path, "choice", [])


def test_an_answer_outside_its_choices_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="2 choices"):
        write_pack(tmp_path, "choice", [ROWS[0] | {"answer": 2}])


def test_a_question_of_digits_stays_text(model: Any, tokenizer: Any, tmp_path: Path) -> None:
    """A template that renders to digits would become an index, and the choices the contexts."""
    pack = write_pack(tmp_path, "choice", [ROWS[0] | {"question": "1"}])
    (sample,) = evaluate_folder(model, tokenizer, pack.folder, [pack.task]).samples[pack.task]
    assert len(sample.answers[0]) == 2


def test_braces_in_data_are_not_a_template(model: Any, tokenizer: Any, tmp_path: Path) -> None:
    pack = write_pack(tmp_path, "perplexity", [{"text": "f'{{x}}' {% raw %}", "tokens": 9, "domain": "code"}])
    (sample,) = evaluate_folder(model, tokenizer, pack.folder, [pack.task]).samples[pack.task]
    assert sample.doc["text"] == "f'{{x}}' {% raw %}"


def test_a_smaller_draw_is_part_of_a_larger_one() -> None:
    rows = [{"text": f"t{i}"} for i in range(50)]
    small, large = choose(rows, 10), choose(rows[::-1], 20)
    assert small == large[:10]


def test_a_draw_holds_each_row_once() -> None:
    assert choose([{"text": "a"}, {"text": "b"}, {"text": "a"}], 2) == choose([{"text": "b"}, {"text": "a"}], None)


def test_an_even_draw_takes_equally_many_of_each_group() -> None:
    rows = [{"text": f"t{i}", "domain": "a" if i < 40 else "b"} for i in range(50)]
    chosen = choose_evenly(rows, 12, lambda row: str(row["domain"]))
    assert [row["domain"] for row in chosen] == ["a"] * 6 + ["b"] * 6


def test_choice_scores_by_hand() -> None:
    """Log-likelihoods ln 0.6, ln 0.3, ln 0.1 over choices of 4, 1 and 1 characters, the second is right."""
    doc = {"choices": ["long", "b", "c"], "answer": 1}
    found = choice(doc, [(math.log(0.6), False), (math.log(0.3), False), (math.log(0.1), False)])
    assert found["acc"] == 0.0
    assert found["acc_norm"] == 0.0
    assert found["brier"] == pytest.approx(0.36 + 0.49 + 0.01)
    assert found["probability"] == pytest.approx(0.3)


def test_choice_scores_of_nan_are_nan() -> None:
    found = choice({"choices": ["a", "b"], "answer": 0}, [(math.nan, False), (-1.0, False)])
    assert all(math.isnan(value) for value in found.values())


def test_a_preference_margin_is_a_difference_of_log_likelihoods() -> None:
    assert preference({}, [(-3.0, False), (-5.0, False)]) == {"margin": 2.0, "acc": 1.0}


def test_perplexity_values_by_hand() -> None:
    """A text of four bytes and two tokens at -4 ln 2: 2 ln 2 per token, one bit per byte."""
    found = perplexity({"text": "abcd", "tokens": 2}, [-4 * math.log(2)])
    assert found == {"nll": pytest.approx(2 * math.log(2)), "bits_per_byte": pytest.approx(1.0)}


def test_answers_are_scored_without_the_blanks_around_them() -> None:
    assert checked_format({"check": '{"format": "upper"}'}, [" ROME "])["acc"] == 1.0
    assert judged({"truth": '{"value": "rome", "good": ["it is rome"]}'}, [" it is rome"])["score"] == 1.0
