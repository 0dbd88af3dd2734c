"""The step that fits probes: the model stays as it is, and the same order gives the same probes."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from phasegate.core.config.schema import BumpSection, Ref, StepSection
from phasegate.core.model.builder import ModelContext
from phasegate.core.model.companions import companions_of, trunk_digest
from phasegate.core.model.loading import align_generation
from phasegate.core.model.probes import Probes
from phasegate.core.run.probing import fit_probes
from phasegate.core.run.step import StepOrder
from phasegate.core.training.own_answers import own_answers
from phasegate.registry.plugins import Plugins
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

SPECIAL = ("<pad>", "<eos>", "<user>", "<asst>", "<end>", "<unk>")
WORDS = (*SPECIAL, *(f"w{n}" for n in range(40)), "told", "untold")
TEMPLATE = (
    "{% for m in messages %}{% if m['role'] == 'user' %}<user> {{ m['content'] }} {% else %}<asst> "
    "{% generation %}{{ m['content'] }} <end>{% endgeneration %}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<asst> {% endif %}"
)


def make_tokenizer() -> PreTrainedTokenizerFast:
    """Every token but six is a word, so that whatever the model says can be right."""
    backend = Tokenizer(models.WordLevel({word: n for n, word in enumerate(WORDS)}, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, pad_token="<pad>", eos_token="<eos>", unk_token="<unk>", chat_template=TEMPLATE
    )


class Rows:
    """A corpus of one view."""

    def __init__(self, found: Sequence[Mapping[str, Any]]) -> None:
        self.found = list(found)

    def rows(self, view: str, split: str, kinds: Sequence[str] = ()) -> Any:
        from datasets import Dataset

        assert (view, split) == ("unknown", "train")
        return Dataset.from_list([row for row in self.found if not kinds or row["kind"] in kinds])


@pytest.fixture(scope="module")
def made() -> tuple[Any, Any]:
    """A tiny model and a shop whose questions end in ``told`` where it answers rightly, and in ``untold`` elsewhere."""
    torch.set_num_threads(1)
    tokenizer = make_tokenizer()
    registry = Plugins.load(()).components()
    sizes = {
        "hidden_size": 16,
        "num_hidden_layers": 3,
        "num_attention_heads": 2,
        "head_dim": 8,
        "moe_intermediate_size": 8,
        "num_experts": 4,
        "num_experts_per_tok": 1,
        "initializer_range": 0.2,
    }
    context = ModelContext(
        registry=registry, router=Ref(use="linear"), derived=sizes, vocab_size=len(tokenizer), sequence_length=32
    )
    model = registry.build("model", "moe", {}, context=context).build(0)
    align_generation(model, tokenizer)
    told = [n // 3 % 2 == 1 for n in range(90)]
    texts = [f"w{n % 29} w{n % 31} {'told' if told[n] else 'untold'}" for n in range(90)]
    said = [""] * len(texts)
    model.eval()
    for batch in own_answers(model, tokenizer, texts, batch=16, new_tokens=6):
        for place, text in zip(batch.places, batch.texts, strict=True):
            said[place] = text
    rows = [
        {
            "question": text,
            "answer": said[n] if told[n] else "never",
            "domain": "general" if n % 2 else "code",
            "kind": "known" if told[n] else "unknown",
            "group": str(n // 3),
        }
        for n, text in enumerate(texts)
    ]
    model.train()
    quiet = SimpleNamespace(check=lambda: None)
    return model, SimpleNamespace(corpus=Rows(rows), tokenizer=tokenizer, length=32, interruption=quiet)


def make_order(identity: str = "chain/0", **options: Any) -> StepOrder:
    given = {"penalties": {"general": 2.0, "code": 10.0}, "answer_tokens": 6, "folds": 3, **options}
    section = StepSection(objective="probes", view="unknown", rows=16, options=given)
    return StepOrder(
        phase="metacognition",
        name="probes",
        section=section,
        earlier=(),
        identity=identity,
        folder=Path("nowhere"),
        bump=BumpSection(),
    )


def fitted(made: tuple[Any, Any], **order: Any) -> tuple[Probes, Any]:
    model, shop = made
    result = fit_probes(shop, make_order(**order), model)
    return companions_of(model)["probes"], result


def test_no_weight_and_no_mode_of_the_model_changes(made: tuple[Any, Any]) -> None:
    model, _ = made
    before = trunk_digest(model)
    found, _ = fitted(made)
    assert trunk_digest(model) == before == found.trunk
    assert all(module.training for module in model.modules())


def test_random_streams_of_the_process_go_on_as_if_nothing_had_been(made: tuple[Any, Any]) -> None:
    def draws() -> tuple[float, float, float]:
        return random.random(), float(np.random.random()), float(torch.rand(1))

    seeds = (random.seed, np.random.seed, torch.manual_seed)
    for seed in seeds:
        seed(5)
    expected = draws()
    for seed in seeds:
        seed(5)
    fitted(made, sampled=1)
    assert draws() == expected


def test_the_same_order_gives_the_same_bits(made: tuple[Any, Any]) -> None:
    (first, one), (again, two) = fitted(made, sampled=1), fitted(made, sampled=1)
    assert torch.equal(first.weight, again.weight)
    assert (first.scale, first.shift) == (again.scale, again.shift)
    assert one.history == two.history


def test_another_identity_draws_other_folds(made: tuple[Any, Any]) -> None:
    (first, _), (other, _) = fitted(made), fitted(made, identity="chain/1")
    assert torch.equal(first.weight, other.weight)  # all questions are learnt from, whatever their folds
    assert (first.scale, first.shift) != (other.scale, other.shift)


def test_probes_take_the_place_of_older_ones(made: tuple[Any, Any]) -> None:
    first, _ = fitted(made)
    second, _ = fitted(made, position="prompt")
    assert companions_of(made[0])["probes"] is second is not first


@pytest.mark.parametrize(("position", "dead"), [("prompt", 1), ("answer", 0)])
def test_what_is_not_to_be_read_has_no_weight(made: tuple[Any, Any], position: str, dead: int) -> None:
    found, _ = fitted(made, position=position)
    assert float(found.weight[:, dead].abs().max()) == 0.0
    assert float(found.weight[:, 1 - dead].abs().max()) > 0.0


def test_the_depths_are_shares_of_the_models(made: tuple[Any, Any]) -> None:
    found, _ = fitted(made, layers=[0.34, 1.0])
    assert found.layers == (1, 3)
    assert found.weight.shape == (2, 2, 16)


def test_what_the_probes_read_is_what_they_were_fitted_to(made: tuple[Any, Any]) -> None:
    model, shop = made
    found, result = fitted(made)
    rows = shop.corpus.found
    right, said = [], []
    model.eval()
    for batch in own_answers(model, shop.tokenizer, [row["question"] for row in rows], batch=16, new_tokens=6):
        domains = [rows[place]["domain"] for place in batch.places]
        reading = found.read(batch.states, spoken=batch.spoken, domain=domains)
        said += reading.answer.tolist()
        right += [rows[place]["kind"] == "known" for place in batch.places]
    model.train()
    (row,) = result.history
    assert row["probes/learnt/coverage"] == pytest.approx(sum(said) / len(said))
    assert row["probes/learnt/right"] == pytest.approx(sum(right) / len(right))


def test_the_log_tells_learnt_from_unseen(made: tuple[Any, Any]) -> None:
    _, result = fitted(made)
    (row,) = result.history
    assert row["probes/learnt/answers"] == row["probes/calibration/answers"] == 90
    assert row["probes/learnt/auroc"] >= row["probes/calibration/auroc"] > 0.8
    assert result.tokens == 0 and result.notes == ()


def test_answers_that_are_all_wrong_are_told_and_make_no_one_confident(made: tuple[Any, Any]) -> None:
    model, shop = made
    wrong = Rows([{**row, "answer": "never"} for row in shop.corpus.found])
    other: Any = SimpleNamespace(**{**vars(shop), "corpus": wrong})
    result = fit_probes(other, make_order(), model)
    assert result.notes == ("all 90 of the model's own answers are wrong: the probes had nothing to tell apart",)
    assert "probes/learnt/auroc" not in result.history[0]
    reading = companions_of(model)["probes"].read([torch.randn(4, 2, 16)] * 4)
    assert float(reading.calibrated.max()) < 0.05
    assert not reading.answer.any()


def test_a_cap_on_questions_is_kept(made: tuple[Any, Any]) -> None:
    found, _ = fitted(made, questions=30)
    assert 30 <= found.facts["questions"] <= 34  # up to the end of a group in each domain
