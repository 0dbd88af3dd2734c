"""The rows of a contrast step: both answers tokenised, and kinds drawn by their shares."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from phasegate.core.config.schema import StepSection
from phasegate.core.data.corpus import Corpus
from phasegate.core.data.step_data import StepData, StepDataRequest, build_step_data
from phasegate.registry.errors import ConfigError, DataError

Build = Callable[..., StepData]
SHARES = {"harmful": 0.3, "benign": 0.25, "medical": 0.25, "general": 0.1}


def message(role: str, content: str) -> list[dict[str, str]]:
    return [{"role": role, "content": content}]


def rows_of(word: str, counts: dict[str, int]) -> list[dict[str, Any]]:
    """Rows by kind; every second harmful one has no rejected answer."""
    return [
        {
            "prompt": message("user", f"{word} question {n} ?{' .' * n}"),
            "completion": message("assistant", f"good {n}"),
            "rejected": [] if kind == "harmful" and n % 2 else message("assistant", "bad"),
            "domain": ("general", "code")[n % 2],
            "kind": kind,
        }
        for kind, count in counts.items()
        for n in range(count)
    ]


@pytest.fixture
def build(corpus_of: Callable[..., Corpus], tokenizer: Any) -> Build:
    counts = {"harmful": 6, "benign": 3, "medical": 4, "general": 5}

    def made(length: int = 32, heldout: list[dict[str, Any]] | None = None, **section: Any) -> StepData:
        corpus = corpus_of(
            {
                ("refusal", "train"): rows_of("told", counts),
                ("refusal", "heldout"): heldout or rows_of("kept", dict.fromkeys(counts, 2)),
            }
        )
        changes = {"steps": 10, "rows": 20} | section
        step = StepSection(objective="contrast", view="refusal", **changes)
        return build_step_data(StepDataRequest(corpus=corpus, tokenizer=tokenizer, step=step, length=length))

    return made


def kinds_of(data: StepData) -> list[str]:
    return [data.train.features["kind"].int2str(number) for number in data.train["kind"]]


def test_a_step_draws_the_kinds_by_their_shares(build: Build) -> None:
    """Shares that do not add up to one are taken in proportion; a kind that is not named is not drawn."""
    kinds = kinds_of(build(options={"shares": SHARES}, rows=18))
    for number in range(10):
        assert Counter(kinds[18 * number : 18 * number + 18]) == {"harmful": 6, "benign": 5, "medical": 5, "general": 2}


def test_the_shares_hold_over_any_beginning_when_rows_do_not_divide(build: Build) -> None:
    data = build(options={"shares": SHARES}, rows=7)
    kinds = kinds_of(data)
    for end in range(7, 71, 7):
        counts = Counter(kinds[:end])
        for kind, share in SHARES.items():
            assert abs(counts[kind] - share / 0.9 * end) < 1
    assert data.shares["harmful"] == pytest.approx(1 / 3, abs=0.01)


def test_without_shares_kinds_are_drawn_as_the_data_has_them(build: Build) -> None:
    counts = Counter(kinds_of(build(rows=18)))
    assert counts == {"harmful": 60, "benign": 30, "medical": 40, "general": 50}


def test_only_the_named_kinds_are_drawn(build: Build) -> None:
    assert set(kinds_of(build(kinds=("harmful", "benign")))) == {"harmful", "benign"}


def test_a_share_of_a_kind_that_is_not_there_is_refused(build: Build) -> None:
    with pytest.raises(
        ConfigError, match=r"names the kind 'medcal', which no training row has. Did you mean 'medical'"
    ):
        build(options={"shares": {"medcal": 1.0}})


def test_a_row_holds_its_prompt_with_either_answer(build: Build, tokenizer: Any) -> None:
    for row in build(options={"shares": {"benign": 1.0, "harmful": 1.0}}).train:
        said = [token for token, spoken in zip(row["input_ids"], row["assistant_masks"], strict=True) if spoken]
        assert tokenizer.decode(said, skip_special_tokens=True).split()[0] == "good"
        if row["rejected_ids"]:
            unsaid = [t for t, spoken in zip(row["rejected_ids"], row["rejected_masks"], strict=True) if spoken]
            assert tokenizer.decode(unsaid, skip_special_tokens=True).strip() == "bad"
            start = row["assistant_masks"].index(1)
            assert row["rejected_ids"][:start] == row["input_ids"][:start]
        else:
            assert row["rejected_masks"] == []


def test_rows_without_a_rejected_answer_stay(build: Build) -> None:
    data = build(options={"shares": {"harmful": 1.0}}, steps=6, rows=2)
    assert sum(not ids for ids in data.train["rejected_ids"]) == 6
    assert data.notes == ()


def test_the_rows_of_a_step_do_not_depend_on_how_long_it_trains(build: Build) -> None:
    short, long = (build(options={"shares": SHARES}, steps=steps).train["input_ids"][:] for steps in (5, 10))
    assert long[:100] == short


def test_both_answers_count_as_tokens_and_what_is_too_long_is_said(build: Build) -> None:
    data = build()
    both = zip(data.train["input_ids"], data.train["rejected_ids"], strict=True)
    assert data.tokens == sum(len(said) + len(unsaid) for said, unsaid in both)
    longest = max(len(ids) for ids in data.train["input_ids"])
    short = build(length=longest - 1)
    assert "are longer than" in short.notes[0]


def test_held_out_rows_without_an_answer_are_left_aside(build: Build) -> None:
    """Prompts for evaluation only have nothing to say."""
    silent = [row | {"completion": []} for row in rows_of("kept", {"benign": 2})]
    assert len(build(heldout=[*silent, *rows_of("kept", {"harmful": 2})]).heldout) == 2
    assert len(build(heldout=silent).heldout) == 0


def test_a_view_without_rejected_answers_is_refused(corpus_of: Callable[..., Corpus], tokenizer: Any) -> None:
    rows = [{k: v for k, v in row.items() if k != "rejected"} | {"check": ""} for row in rows_of("told", {"open": 3})]
    corpus = corpus_of({("chat", "train"): rows, ("chat", "heldout"): rows})
    step = StepSection(objective="contrast", view="chat", steps=1, rows=2)
    with pytest.raises(DataError, match="'chat' does not say what should not be said"):
        build_step_data(StepDataRequest(corpus=corpus, tokenizer=tokenizer, step=step, length=24))
