"""The data of one step, in final order."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
from phasegate.core.config.schema import BatchSection, ReplaySection, StepSection
from phasegate.core.data.corpus import Corpus
from phasegate.core.data.step_data import StepData, StepDataRequest, build_step_data
from phasegate.registry.errors import ConfigError, DataError

EVEN = BatchSection(mixture={"general": 0.5, "code": 0.5})
PRETRAIN = StepSection(steps=6, rows=4, batches=EVEN)
TUNE = StepSection(objective="sft", view="chat", steps=3, rows=4)
PREFER = StepSection(objective="dpo", view="preference", steps=3, rows=4)

Build = Callable[..., StepData]


@pytest.fixture
def build(small_corpus: Corpus, tokenizer: Any) -> Build:
    def made(step: StepSection, length: int = 16, **request: Any) -> StepData:
        return build_step_data(
            StepDataRequest(corpus=small_corpus, tokenizer=tokenizer, step=step, length=length, **request)
        )

    return made


def test_a_causal_step_has_exactly_its_rows_and_tokens(build: Build) -> None:
    data = build(PRETRAIN)
    assert len(data.train) == 24
    assert data.tokens == 24 * 16
    assert set(data.train.column_names) == {"input_ids", "position_ids", "labels", "domain"}
    assert {len(row) for name in ("input_ids", "position_ids", "labels") for row in data.train[name]} == {16}
    assert data.shares == {"general": 0.5, "code": 0.5, "replay": 0.0}
    assert data.replay is None


def test_a_row_holds_text_of_its_domain_only(build: Build, tokenizer: Any) -> None:
    for row in build(PRETRAIN).train:
        mine, other = (("general", "code"), ("code", "general"))[row["domain"]]
        text = tokenizer.decode(row["input_ids"])
        assert mine[-4:] in text
        assert other not in text


def test_held_out_rows_are_of_held_out_text_with_the_domains_in_turn(build: Build, tokenizer: Any) -> None:
    heldout = build(PRETRAIN).heldout
    assert heldout["domain"][:4] in ([0, 1, 0, 1], [1, 0, 1, 0])
    assert not any("told" in tokenizer.decode(ids) for ids in heldout["input_ids"])


def test_the_same_request_gives_the_same_rows_and_another_seed_others(build: Build) -> None:
    rows = build(PRETRAIN).train["input_ids"][:]
    assert build(PRETRAIN).train["input_ids"][:] == rows
    assert build(PRETRAIN, seed=1).train["input_ids"][:] != rows


def test_the_rows_of_a_step_do_not_depend_on_how_long_it_trains(build: Build) -> None:
    longer = StepSection(steps=20, rows=4, batches=EVEN)
    assert build(longer).train["input_ids"][:24] == build(PRETRAIN).train["input_ids"][:]
    rest = build(StepSection(steps=14, rows=4, batches=EVEN), first_step=6)
    assert rest.train["input_ids"][:] == build(longer).train["input_ids"][24:]


def test_replayed_rows_have_the_mixture_of_the_earlier_steps(build: Build) -> None:
    earlier = StepSection(steps=5, rows=4, batches=BatchSection(mixture={"code": 1.0}))
    step = StepSection(
        steps=10, rows=4, batches=BatchSection(mixture={"general": 1.0}), replay=ReplaySection(share=0.25)
    )
    data = build(step, previous=(earlier,))
    assert data.shares == {"general": 0.75, "code": 0.25, "replay": 0.25}
    assert all(sorted(data.train["domain"][n : n + 4]) == [0, 0, 0, 1] for n in range(0, 40, 4))


def test_replay_with_nothing_earlier_says_so(build: Build) -> None:
    data = build(StepSection(steps=2, rows=4, batches=EVEN, replay=ReplaySection(share=0.25)))
    assert data.shares["replay"] == 0
    assert data.notes == ("replay.share is 0.25, but no earlier step has text to replay",)


def test_passes_over_a_domain_are_counted(build: Build) -> None:
    data = build(StepSection(steps=40, rows=4, batches=BatchSection(mixture={"code": 1.0})))
    different = {tuple(ids) for ids in data.train["input_ids"]}
    assert len(different) < 160
    assert data.epochs == {"code": pytest.approx(160 / len(different))}


def test_an_sft_step_gives_tokens_with_the_assistants_marked(build: Build, tokenizer: Any) -> None:
    data = build(TUNE, length=64)
    assert len(data.train) == 12
    assert set(data.train.column_names) == {"input_ids", "assistant_masks", "domain"}
    assert data.tokens == sum(len(ids) for ids in data.train["input_ids"])
    for row in data.train:
        said = [i for i, m in zip(row["input_ids"], row["assistant_masks"], strict=True) if m]
        assert tokenizer.decode(said).startswith(" answer")
    assert len(data.heldout) == 12


def test_a_dpo_step_gives_conversations_for_trl_to_tokenise(build: Build) -> None:
    data = build(PREFER, length=64)
    assert len(data.train) == 12
    assert set(data.train.column_names) == {"prompt", "chosen", "rejected", "domain"}
    row = data.train[0]
    assert row["prompt"][0]["role"] == "user"
    assert row["chosen"][0]["content"].startswith("good")
    assert row["rejected"][0]["content"].startswith("bad")


def test_rows_that_are_too_long_are_noted(build: Build, tokenizer: Any) -> None:
    longest = max(len(ids) for ids in build(TUNE, length=64).train["input_ids"])
    data = build(TUNE, length=longest - 1)
    assert data.report["too_long"] > 0
    assert f"are longer than {longest - 1} tokens and were left out" in data.notes[0]


def test_a_dpo_step_without_a_short_enough_pair_is_an_error(build: Build) -> None:
    with pytest.raises(DataError, match="All 12 train preference pairs are longer than 4 tokens"):
        build(PREFER, length=4)


def test_replay_beside_a_dpo_step_mixes_text_and_the_chats_that_may_be_replayed(build: Build, tokenizer: Any) -> None:
    step = StepSection(
        objective="dpo",
        view="preference",
        steps=3,
        rows=4,
        replay=ReplaySection(rows=8, weight=1.0, chat=0.5),
    )
    replay = build(step, previous=(PRETRAIN, TUNE)).replay
    assert replay is not None
    shares = replay.shares()
    assert sum(share for name, share in shares.items() if name.startswith("text/")) == pytest.approx(0.5)
    assert sum(share for name, share in shares.items() if name.startswith("chat/")) == pytest.approx(0.5)
    seen = " ".join(tokenizer.decode(row) for n in range(30) for row in replay.batch(n, 0, 0, 1)["input_ids"])
    assert "answer 4" in seen
    assert "answer 3" not in seen  # odd chats say replay: false


def test_replayed_chats_teach_only_what_the_assistant_says(build: Build, tokenizer: Any) -> None:
    step = StepSection(objective="sft", view="chat", steps=3, rows=4, replay=ReplaySection(rows=4, weight=1.0, chat=1))
    replay = build(step, previous=(TUNE,), length=32).replay
    assert replay is not None
    labels = replay.batch(0, 0, 0, 1)["labels"]
    assert 0 < (labels != -100).sum() < labels.numel() / 2


@pytest.mark.parametrize(
    ("step", "message"),
    [
        (StepSection(steps=0), "steps >= 1"),
        (StepSection(view="chat"), "A causal step reads the view 'text', not 'chat'"),
        (StepSection(objective="sft", view="chat", replay=ReplaySection(rows=4)), "no earlier step is causal"),
        (
            StepSection(objective="sft", view="chat", replay=ReplaySection(rows=4, chat=1.0)),
            "no earlier step is sft",
        ),
        (StepSection(objective="sft", view="chat", replay=ReplaySection(rows=4, chat=2.0)), "between 0 and 1"),
    ],
)
def test_a_step_that_cannot_be_is_named(build: Build, step: StepSection, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build(step, length=32)


def test_a_domain_too_small_for_one_row_is_an_error(build: Build) -> None:
    with pytest.raises(DataError, match="not one full row"):
        build(PRETRAIN, length=2000)


SCRIPT = """
import json, sys
sys.path.insert(0, {folder!r})
from pathlib import Path
from phasegate.core.config.schema import BatchSection, DataSection, ReplaySection, StepSection
from phasegate.core.data.corpus import Corpus
from phasegate.core.data.source import SourceContext
from phasegate.core.data.hashing import digest
from phasegate.core.data.step_data import StepDataRequest, build_step_data
from phasegate.core.model.tokenizer import train_tokenizer
from phasegate.plugins.sources.microworld import Microworld, MicroworldConfig

config = MicroworldConfig(training_documents=1400, chats=140, pairs=70, heldout_chats=70, heldout_pairs=70)
source = Microworld(config, context=SourceContext(root=Path(), name="world", held_out=0.05))
corpus = Corpus({{"world": source}}, DataSection(), Path())
tokenizer = train_tokenizer(corpus.tokenizer_texts(700), 400)
earlier = StepSection(steps=4, rows=8)
made = []
for step in (
    StepSection(steps=4, rows=8, batches=BatchSection(kind="concentrated"), replay=ReplaySection(share=0.1)),
    StepSection(objective="sft", view="chat", steps=3, rows=4, replay=ReplaySection(rows=3, weight=1.0)),
    StepSection(objective="dpo", view="preference", steps=2, rows=4),
):
    data = build_step_data(
        StepDataRequest(corpus=corpus, tokenizer=tokenizer, step=step, length=96, previous=(earlier,), seed=3)
    )
    made.append(data.train.to_list())
    made.append(data.heldout.to_list()[:20])
    if data.replay is not None:
        made.append(data.replay.batch(2, 0, 0, 1)["input_ids"].tolist())
print(json.dumps([corpus.fingerprint(), digest(made)]))
"""


def test_other_processes_with_other_string_hashes_draw_the_same_rows(tmp_path: Any) -> None:
    found = []
    for seed in ("1", "2"):
        environment = {**os.environ, "PYTHONHASHSEED": seed, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
        done = subprocess.run(
            [sys.executable, "-c", SCRIPT.format(folder=str(tmp_path))],
            capture_output=True,
            text=True,
            env=environment,
            cwd=tmp_path,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        found.append(json.loads(done.stdout.splitlines()[-1]))
    assert found[0] == found[1]
