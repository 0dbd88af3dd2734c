"""The step that distils a draft model: the target stays as it is, and the same order gives the same draft."""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

os.environ["HF_HUB_OFFLINE"] = "1"

import numpy as np
import pytest
import torch
from phasegate.core.config.schema import (
    BumpSection,
    Experiment,
    LossSection,
    PhaseSection,
    Ref,
    ReplaySection,
    RunSection,
    StepSection,
    TokenizerSection,
)
from phasegate.core.model.builder import ModelContext
from phasegate.core.model.companions import attach, companions_of, trunk_digest
from phasegate.core.model.loading import align_generation, save_model
from phasegate.core.model.tokenizer import train_tokenizer
from phasegate.core.run.drafting import check_draft, train_draft
from phasegate.core.run.interrupt import Interrupted, Interruption
from phasegate.core.run.plan import with_drafts
from phasegate.core.run.step import StepOrder, Workshop
from phasegate.registry.errors import ConfigError, DataError
from phasegate.registry.plugins import Plugins

SENTENCE = "the cat sat on a red mat and ate one small fish while it rained over the old town by the sea"
WORDS = SENTENCE.split()
SIZES = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "head_dim": 8,
    "moe_intermediate_size": 8,
    "num_experts": 3,
    "num_experts_per_tok": 1,
    "initializer_range": 0.3,
}


class Rows:
    """A corpus of dialogues, questions without answers, and text."""

    domains = ("general",)

    def __init__(self) -> None:
        said = [f"{WORDS[n % 20]} {WORDS[(7 * n) % 20]}" for n in range(60)]
        self.views: Mapping[str, Sequence[Mapping[str, Any]]] = {
            "chat": [
                {
                    "prompt": [{"role": "user", "content": text if n else " ".join(WORDS * 2)}],
                    "completion": [{"role": "assistant", "content": WORDS[n % 20]}],
                    "domain": "general",
                    "kind": "long" if n == 0 else "short",
                }
                for n, text in enumerate(said)
            ],
            "unknown": [{"question": text, "answer": "", "domain": "general", "kind": "x"} for text in said],
            "text": [{"text": " ".join(WORDS[n % 7 :]), "domain": "general"} for n in range(20)],
        }

    def rows(self, view: str, split: str, kinds: Sequence[str] = ()) -> Any:
        from datasets import Dataset

        assert split == "train"
        return Dataset.from_list([dict(row) for row in self.views[view] if not kinds or row["kind"] in kinds])

    def view(self, view: str, split: str) -> Any:
        return self.rows(view, split)

    def tokenizer_texts(self, documents: int) -> Any:
        return iter([SENTENCE] * 3)


@pytest.fixture
def build() -> Callable[..., Any]:
    torch.set_num_threads(1)
    registry = Plugins.load(()).components()

    def make(vocab_size: int = 300, text: str = SENTENCE) -> tuple[Any, Any]:
        tokenizer = train_tokenizer([text] * 3, vocab_size)
        context = ModelContext(
            registry=registry, router=Ref(use="linear"), derived=SIZES, vocab_size=len(tokenizer), sequence_length=32
        )
        model = registry.build("model", "moe", {}, context=context).build(0)
        align_generation(model, tokenizer)
        return model, tokenizer

    return make


@pytest.fixture
def shop(build: Callable[..., Any]) -> Any:
    model, tokenizer = build()
    plugins = Plugins.load(())
    made = Workshop(
        experiment=Experiment(name="tiny", run=RunSection(logging_steps=2, save_every=0.5)),
        registry=plugins.components(),
        plugins=plugins,
        corpus=Rows(),  # type: ignore[arg-type]
        tokenizer=tokenizer,
        length=32,
        interruption=Interruption(),
        callbacks=lambda *_: (),
    )
    return model, made


def section(**changes: Any) -> StepSection:
    options = {"samples": 40, "sample_tokens": 8, **changes.pop("options", {})}
    return StepSection(
        **{
            "objective": "draft",
            "view": "chat",
            "steps": 4,
            "rows": 4,
            "learning_rate": 5e-3,
            "options": options,
            **changes,
        }
    )


def make_order(folder: Path, identity: str = "chain/0", **changes: Any) -> StepOrder:
    return StepOrder(
        phase="optimization",
        name="draft",
        section=section(**changes),
        earlier=(),
        identity=identity,
        folder=folder,
        bump=BumpSection(),
    )


def weights(model: Any) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in companions_of(model)["draft"].network.state_dict().items()}


def same(one: Mapping[str, torch.Tensor], other: Mapping[str, torch.Tensor]) -> bool:
    return set(one) == set(other) and all(torch.equal(one[name], other[name]) for name in one)


def test_the_target_keeps_its_bits_modes_and_gradients_and_the_process_its_random_state(
    shop: Any, tmp_path: Path
) -> None:
    model, made = shop
    model.train()
    before = trunk_digest(model)
    states = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state()
    result = train_draft(made, make_order(tmp_path), model)
    assert trunk_digest(model) == before == companions_of(model)["draft"].trunk
    assert all(module.training for module in model.modules())
    assert all(one.requires_grad and one.grad is None for one in model.parameters())
    assert (random.getstate(), np.random.get_state()[1].tolist()) == states[:2]
    assert torch.equal(torch.get_rng_state(), states[2])
    assert result.tokens == 4 * 4 * 32 and result.bump is None
    assert [row["step"] for row in result.history if "loss/task" in row] == [2, 4]


def test_the_draft_that_is_attached_proposes_what_the_options_say(shop: Any, tmp_path: Path) -> None:
    model, made = shop
    train_draft(made, make_order(tmp_path, options={"proposals": 6, "hidden_size": 8, "layers": 2}), model)
    draft = companions_of(model)["draft"]
    assert draft.assistant(model).generation_config.num_assistant_tokens == 6
    assert (draft.network.config.hidden_size, draft.network.config.num_hidden_layers) == (8, 2)
    assert draft.facts == {"phase": "optimization", "samples": 39, "step": "draft", "steps": 4}
    ids = torch.tensor([[7, 8, 9]])
    options = {"attention_mask": torch.ones_like(ids), "max_new_tokens": 10, "do_sample": False}
    alone = model.eval().generate(ids, **options)
    assert torch.equal(model.generate(ids, assistant_model=draft.assistant(model), **options), alone)


def test_the_same_order_gives_the_same_draft_and_another_identity_another(shop: Any, tmp_path: Path) -> None:
    model, made = shop
    found = []
    for number, identity in enumerate(("chain/0", "chain/0", "chain/1")):
        torch.manual_seed(number)  # what ran before does not matter
        attach(model, "draft", None)
        train_draft(made, make_order(tmp_path / str(number), identity), model)
        found.append(weights(model))
    assert same(found[0], found[1]) and not same(found[0], found[2])


class Late(Interruption):
    """A wish to stop that is heard once training has written a checkpoint below ``folder``."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder = folder
        self.event.set()

    def check(self) -> None:
        if list(self.folder.rglob("COMPLETE")):
            self.signal = 15
        super().check()


def test_a_killed_step_goes_on_to_the_same_draft(shop: Any, tmp_path: Path) -> None:
    model, made = shop
    whole = train_draft(made, make_order(tmp_path / "whole"), model)
    expected = weights(model)
    attach(model, "draft", None)
    made.interruption.signal = 15
    made.interruption.event.set()
    with pytest.raises(Interrupted):  # before the first batch of samples
        train_draft(made, make_order(tmp_path / "killed"), model)
    assert not list((tmp_path / "killed").glob("*"))
    made.interruption.signal = None
    late = replace(made, interruption=Late(tmp_path / "killed"))
    with pytest.raises(Interrupted):  # in training, at the first logged step
        train_draft(late, make_order(tmp_path / "killed"), model)
    assert "draft" not in companions_of(model)
    assert (tmp_path / "killed/checkpoint-2/COMPLETE").is_file()
    made.interruption.signal = None
    made.interruption.event.clear()
    resumed = train_draft(made, make_order(tmp_path / "killed"), model)
    assert same(weights(model), expected)
    kept = ("loss", "loss/task", "grad_norm", "step")
    assert [{k: row[k] for k in kept} for row in resumed.history if "loss" in row] == [
        {k: row[k] for k in kept} for row in whole.history if "loss" in row
    ]


def test_samples_are_kept_and_not_drawn_again(shop: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, made = shop
    train_draft(made, make_order(tmp_path / "one"), model)
    expected = weights(model)
    attach(model, "draft", None)
    for path in (tmp_path / "one").glob("checkpoint-*"):
        path.rename(tmp_path / path.name)
    monkeypatch.setattr(type(model), "generate", None)
    train_draft(made, make_order(tmp_path / "one"), model)
    assert same(weights(model), expected)


def test_a_draft_that_the_model_already_has_is_trained_on(shop: Any, tmp_path: Path) -> None:
    model, made = shop
    train_draft(made, make_order(tmp_path / "one", steps=12), model)
    first = weights(model)
    train_draft(made, make_order(tmp_path / "two", "chain/1", steps=1, warmup=0.0, learning_rate=1e-6), model)
    second = weights(model)
    assert not same(first, second)
    assert all(torch.allclose(first[name], second[name], atol=1e-5) for name in first)
    train_draft(made, make_order(tmp_path / "three", "chain/2", steps=1, options={"hidden_size": 8}), model)
    assert companions_of(model)["draft"].network.config.hidden_size == 8


def test_dialogues_of_the_view_and_continuations_of_text_are_learnt_too(shop: Any, tmp_path: Path) -> None:
    model, made = shop
    rows: list[int] = []
    for number, options in enumerate(({}, {"dialogues": 50}, {"text": 0.5}, {"text": 1.0})):
        attach(model, "draft", None)
        train_draft(made, make_order(tmp_path / str(number), options=options), model)
        rows.append(companions_of(model)["draft"].facts["samples"])
    assert rows == [39, 39, 39, 40]
    train_draft(made, make_order(tmp_path / "text", view="text"), model)


def test_prompts_that_leave_no_room_are_left_out_and_counted(shop: Any, tmp_path: Path) -> None:
    model, made = shop
    result = train_draft(made, make_order(tmp_path / "one", options={"samples": 120}), model)
    assert result.notes == ("2 of 120 prompts are longer than 24 tokens and were left out",)
    with pytest.raises(DataError, match="no prompt of view 'chat' is as short as 24 tokens"):
        train_draft(made, make_order(tmp_path / "two", kinds=("long",)), model)


def plan(tokenizer: TokenizerSection | None = None) -> Any:
    experiment = Experiment(name="tiny", tokenizer=tokenizer or TokenizerSection(vocab_size=300))
    experiment = SimpleNamespace(tokenizer=experiment.tokenizer, data=SimpleNamespace(sequence_length=32))
    rows = Rows()
    corpus = SimpleNamespace(rows=rows.rows, view=rows.view, tokenizer_texts=rows.tokenizer_texts, views=lambda: ())
    return SimpleNamespace(experiment=experiment, corpus=corpus)


def test_a_step_that_fits_passes_the_check() -> None:
    check_draft(plan(), "phases.x.steps.draft", section(options={"dialogues": 10}))
    check_draft(plan(), "phases.x.steps.draft", section(view="text"))


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"losses": {"balance": LossSection(use="balance")}}, "losses has no effect in a draft step"),
        ({"replay": ReplaySection(rows=2)}, "replay has no effect in a draft step"),
        ({"options": {"sample_tokens": 30}}, "draws samples of 30 tokens, which leaves no prompt in rows of 32"),
        ({"view": "unknown"}, "needs a view with prompt, which 'unknown' does not have"),
        ({"view": "text", "options": {"dialogues": 5}}, "needs a view with completion, which 'text' does not have"),
        ({"options": {"path": "nowhere"}}, "'nowhere' holds no draft model"),
    ],
)
def test_what_could_not_be_trained_is_refused_before_training(changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        check_draft(plan(), "phases.x.steps.draft", section(**changes))


@pytest.mark.parametrize(
    ("vocab_size", "text", "sentence"),
    [
        (310, SENTENCE, "has a vocabulary of 310 tokens, but the target's has 300"),
        (300, "quite different words, with other letters, were learnt there, now and then", "another vocabulary"),
    ],
)
def test_a_draft_with_another_vocabulary_is_refused_before_training(
    shop: Any, build: Callable[..., Any], tmp_path: Path, vocab_size: int, text: str, sentence: str
) -> None:
    other, tokenizer = build(vocab_size, text)
    assert len(tokenizer) == vocab_size
    model, made = shop
    train_draft(replace(made, tokenizer=tokenizer), make_order(tmp_path / "other"), other)
    save_model(other, tokenizer, tmp_path / "given")
    with pytest.raises(ConfigError, match=rf"phases\.x\.steps\.draft\.options\.path: .*{sentence}"):
        check_draft(plan(), "phases.x.steps.draft", section(options={"path": str(tmp_path / "given")}))
    with pytest.raises(ConfigError, match=sentence):
        train_draft(made, make_order(tmp_path / "own", options={"path": str(tmp_path / "given")}), model)


def test_training_goes_on_from_the_draft_at_a_path(shop: Any, tmp_path: Path) -> None:
    model, made = shop
    train_draft(made, make_order(tmp_path / "one", steps=12), model)
    first = weights(model)
    save_model(model, made.tokenizer, tmp_path / "given")
    attach(model, "draft", None)
    options = {"path": str(tmp_path / "given")}
    check_draft(plan(), "phases.x.steps.draft", section(options=options))
    train_draft(made, make_order(tmp_path / "two", steps=1, warmup=0.0, learning_rate=1e-6, options=options), model)
    assert all(torch.allclose(first[name], tensor, atol=1e-5) for name, tensor in weights(model).items())


def test_a_stage_is_identified_by_the_draft_it_starts_from_and_not_by_where_that_lies(tmp_path: Path) -> None:
    for name, content in (("one", "a"), ("two", "a"), ("three", "b")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "draft.json").write_text(content)
    known = [
        with_drafts(PhaseSection(steps={"draft": section(options={"path": name})}), tmp_path).steps["draft"].options
        for name in ("one", "two", "three")
    ]
    assert known[0] == known[1] != known[2]
