"""What late phases ask of the data: documents with an answer, kinds of a view, replay of both sides of safety."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
from phasegate.core.config.schema import BatchSection, ReplaySection, StepSection
from phasegate.core.data.corpus import Corpus
from phasegate.core.data.hashing import digest
from phasegate.core.data.prepared import check_answers
from phasegate.core.data.step_data import StepData, StepDataRequest, build_step_data
from phasegate.registry.errors import ConfigError, DataError

EVEN = BatchSection(mixture={"general": 0.5, "code": 0.5})
PRETRAIN = StepSection(steps=5, rows=4, batches=EVEN)
TUNE = StepSection(objective="sft", view="chat", steps=3, rows=4)
NEEDLE = StepSection(objective="sft", view="needle", steps=4, rows=4)

Build = Callable[..., StepData]


def said(role: str, content: str) -> list[dict[str, str]]:
    return [{"role": role, "content": content}] if content else []


@pytest.fixture
def late(corpus_of: Callable[..., Corpus]) -> Corpus:
    """Text, dialogues, requests to refuse or to answer (one of them evaluation only), and documents of two lengths."""

    def text(word: str) -> list[dict[str, str]]:
        return [{"text": f"{word} general number {n} .", "domain": "general"} for n in range(60)]

    def requests(word: str) -> list[dict[str, Any]]:
        return [
            {
                "prompt": said("user", f"{word} question {n} ?"),
                "completion": said("assistant", {"harmful": "bad", "benign": "good", "asked": ""}[kind]),
                "rejected": said("assistant", "answer"),
                "domain": "general",
                "kind": kind,
            }
            for n in range(6)
            for kind in ("harmful", "benign", "asked")
        ]

    def chats(word: str) -> list[dict[str, Any]]:
        return [
            {
                "prompt": said("user", f"{word} question {n} ?"),
                "completion": said("assistant", f"answer {n}"),
                "domain": "general",
                "kind": "",
                "check": "",
            }
            for n in range(6)
        ]

    def documents(word: str) -> list[dict[str, Any]]:
        return [
            {"text": f"{word} " * length + "number", "answer": str(n), "domain": "general", "kind": str(length)}
            for n in range(5)
            for length in (4, 8)
        ]

    makers = {"text": text, "chat": chats, "refusal": requests, "needle": documents}
    table = {(view, split): make(word) for view, make in makers.items() for split, word in SPLITS.items()}
    return corpus_of(table, domains=("general",))


SPLITS = {"train": "told", "heldout": "kept"}


@pytest.fixture
def build(late: Corpus, tokenizer: Any) -> Build:
    def made(step: StepSection, length: int = 48, **request: Any) -> StepData:
        return build_step_data(StepDataRequest(corpus=late, tokenizer=tokenizer, step=step, length=length, **request))

    return made


def test_an_sft_step_learns_the_answers_of_documents(build: Build, tokenizer: Any) -> None:
    data = build(NEEDLE)
    assert set(data.train.column_names) == {"input_ids", "assistant_masks", "domain"}
    assert len(data.train) == 16
    for row in data.train:
        learnt = [token for token, mask in zip(row["input_ids"], row["assistant_masks"], strict=True) if mask]
        assert tokenizer.decode(learnt).removesuffix("<eos>").strip() in set("01234")
    assert not any("told" in tokenizer.decode(ids) for ids in data.heldout["input_ids"])


def test_kinds_keep_only_their_rows_in_training_and_among_the_held_out(build: Build, tokenizer: Any) -> None:
    data = build(StepSection(objective="sft", view="needle", kinds=("8",), steps=4, rows=4))
    texts = [tokenizer.decode(ids) for ids in (*data.train["input_ids"], *data.heldout["input_ids"])]
    assert {text.count("told") + text.count("kept") for text in texts} == {8}


def test_kinds_have_an_order_of_their_own_and_their_absence_keeps_the_old_one(build: Build) -> None:
    both = StepSection(objective="sft", view="needle", kinds=("4", "8"), steps=4, rows=4)
    assert build(both).train["input_ids"][:] != build(NEEDLE).train["input_ids"][:]


def test_a_kind_that_no_row_has_is_named(build: Build) -> None:
    with pytest.raises(DataError, match="no train rows of the kind '9'; it has 4, 8"):
        build(StepSection(objective="sft", view="needle", kinds=("9",), steps=1, rows=1))


@pytest.mark.parametrize(
    ("view", "kinds", "words"),
    [
        ("needle", ("9",), "it has 4, 8"),
        ("text", (), "'text' has no answers to learn from"),
        ("needles", (), "did you mean 'needle'"),
    ],
)
def test_what_an_sft_step_could_not_learn_from_is_named_with_its_place_before_training(
    late: Corpus, view: str, kinds: tuple[str, ...], words: str
) -> None:
    plan: Any = SimpleNamespace(corpus=late)
    with pytest.raises(DataError, match=words) as caught:
        check_answers(plan, "phases.long.steps.short", StepSection(objective="sft", view=view, kinds=kinds))
    assert str(caught.value).startswith("phases.long.steps.short: ")
    check_answers(plan, "phases.long.steps.short", NEEDLE)


def test_causal_steps_take_no_kinds(build: Build) -> None:
    with pytest.raises(ConfigError, match="has no kinds"):
        build(StepSection(kinds=("4",), steps=1, rows=1, batches=BatchSection(mixture={"general": 1.0})))


def test_a_view_without_answers_is_refused(build: Build) -> None:
    with pytest.raises(DataError, match="'text' has no answers to learn from"):
        build(StepSection(objective="sft", view="text", steps=1, rows=1))


def test_requests_without_an_answer_are_left_out_and_counted(build: Build, tokenizer: Any) -> None:
    data = build(StepSection(objective="sft", view="refusal", steps=3, rows=4))
    assert data.report == {"rows": 12, "too_long": 0, "unanswered": 6}
    assert data.notes == ("6 training rows have no answer to learn from and were left out",)
    assert len(data.heldout) == 12


CONTRAST = StepSection(objective="contrast", view="refusal", steps=3, rows=4)
REPLAYED = ReplaySection(rows=8, weight=1.0, chat=1.0, sequence_length=24)


def test_dialogues_of_sft_and_contrast_steps_are_replayed_alike_however_short_a_step_was(build: Build) -> None:
    step = StepSection(objective="sft", view="needle", steps=1, rows=1, replay=REPLAYED)
    longer = StepSection(objective="contrast", view="refusal", steps=9, rows=4)
    replay = build(step, previous=(TUNE, longer)).replay
    assert replay is not None
    assert replay.shares() == pytest.approx({"chat/0": 0.5, "refusal/0": 0.5})


def test_replayed_requests_are_answered_as_they_should_be(build: Build, tokenizer: Any) -> None:
    step = StepSection(objective="sft", view="needle", steps=1, rows=1, replay=REPLAYED)
    replay = build(step, previous=(CONTRAST,)).replay
    assert replay is not None
    learnt = " ".join(tokenizer.decode(row[row >= 0]) for n in range(20) for row in replay.batch(n, 0, 0, 1)["labels"])
    assert {word for word in ("good", "bad", "answer") if word in learnt} == {"good", "bad"}


def test_kinds_that_a_step_left_out_are_not_replayed(build: Build, tokenizer: Any) -> None:
    step = StepSection(objective="sft", view="needle", steps=1, rows=1, replay=REPLAYED)
    half = StepSection(objective="contrast", view="refusal", kinds=("benign",), steps=3, rows=4)
    replay = build(step, previous=(half,)).replay
    assert replay is not None
    assert set(replay.shares()) == {"refusal[benign]/0"}
    assert not any("bad" in tokenizer.decode(row) for row in replay.batch(0, 0, 0, 1)["input_ids"])


def test_dialogues_of_views_that_are_not_named_are_not_replayed(build: Build) -> None:
    def step(view: str) -> StepSection:
        return StepSection(objective="sft", view="needle", steps=1, rows=1, replay=replace(REPLAYED, views=(view,)))

    replay = build(step("chat"), previous=(TUNE, CONTRAST)).replay
    assert replay is not None
    assert replay.shares() == {"chat/0": 1.0}
    with pytest.raises(ConfigError, match="no earlier step is sft or contrast on dialogues of preference"):
        build(step("preference"), previous=(TUNE, CONTRAST))


def test_documents_are_no_dialogues_to_replay(build: Build) -> None:
    step = StepSection(objective="sft", view="needle", steps=1, rows=1, replay=REPLAYED)
    with pytest.raises(ConfigError, match="no earlier step is sft or contrast on dialogues"):
        build(step, previous=(PRETRAIN, NEEDLE))
    replay = build(step, previous=(TUNE, NEEDLE)).replay
    assert replay is not None
    assert set(replay.shares()) == {"chat/0"}


def test_replayed_rows_have_a_length_of_their_own(build: Build) -> None:
    section = ReplaySection(rows=4, weight=1.0, chat=0.5, sequence_length=12)
    step = StepSection(objective="sft", view="needle", steps=1, rows=1, replay=section)
    before = StepSection(steps=5, rows=4, batches=BatchSection(mixture={"general": 1.0}))
    replay = build(step, length=40, previous=(before, TUNE)).replay
    assert replay is not None
    assert replay.batch(0, 0, 0, 1)["input_ids"].shape == (4, 12)


@pytest.mark.parametrize(
    ("step", "length", "pinned"),
    [
        (
            StepSection(steps=6, rows=4, batches=EVEN, replay=ReplaySection(share=0.25)),
            16,
            "bc2e8ee6ba364fc5e3594bbd",
        ),
        (
            StepSection(objective="sft", view="chat", steps=3, rows=4, replay=ReplaySection(rows=4, weight=1.0)),
            48,
            "9a5ddf57ae8ae48859296af4",
        ),
        (
            StepSection(
                objective="dpo", view="preference", steps=3, rows=4, replay=ReplaySection(rows=4, weight=1.0, chat=0.5)
            ),
            48,
            "7d8f726da1a4aeda7bf3f223",
        ),
    ],
    ids=["causal", "sft", "dpo"],
)
def test_the_batches_of_the_first_three_phases_are_what_they_were_before_there_were_later_ones(
    step: StepSection, length: int, pinned: str, small_corpus: Corpus, tokenizer: Any
) -> None:
    # Pinned on the revision before documents, kinds and contrast steps came: what was trained then stays reproducible.
    tuned = StepSection(objective="sft", view="chat", steps=3, rows=4)
    previous = (PRETRAIN, tuned) if step.objective == "dpo" else (PRETRAIN,)
    request = {"corpus": small_corpus, "tokenizer": tokenizer, "step": step, "length": length, "previous": previous}
    data = build_step_data(StepDataRequest(**request, seed=3))
    made: list[Any] = [data.train.to_list(), data.heldout.to_list()]
    if data.replay is not None:
        made += [{key: value.tolist() for key, value in data.replay.batch(n, 0, 0, 1).items()} for n in range(3)]
    assert digest(made) == pinned
