"""A speaker says what the library would say, unless something that travels with the model says otherwise."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from phasegate.core.model.anchors import Guard
from phasegate.core.model.answers import Answers, encode_answer, replace_rows, spoken_tokens
from phasegate.core.model.companions import attach, trunk_digest
from phasegate.core.model.draft import Draft
from phasegate.core.model.drafter import DrafterConfig, make_drafter
from phasegate.core.model.loading import align_generation
from phasegate.core.model.probes import Probes
from phasegate.core.model.speaker import Speaker
from phasegate.registry.errors import ConfigError

PROMPTS = ["the cat sat on", "o gato come a maçã e a menina bebe água .", "what"]

Speak = Callable[..., Speaker]


@pytest.fixture
def speak(build: Any, tokenizer: Any) -> Speak:
    """A speaker over a tiny model, with a guard or other companions if given."""

    def make(model: Any = None, **companions: Any) -> Speaker:
        model = build(num_experts_per_tok=1) if model is None else model
        align_generation(model, tokenizer)
        for name, companion in companions.items():
            attach(model, name, companion)
        return Speaker(model, tokenizer)

    return make


def padded(tokenizer: Any, texts: list[str] = PROMPTS) -> dict[str, Any]:
    return dict(tokenizer(texts, return_tensors="pt", padding=True, padding_side="left"))


def probes_for(model: Any, **changes: Any) -> Probes:
    stream = torch.Generator().manual_seed(1)
    settings: dict[str, Any] = {
        "layers": (1, 2),
        "weight": torch.randn(2, 2, 32, generator=stream) * 0.2,
        "bias": torch.zeros(2),
        "penalties": {"medical": 10.0, "general": 2.0},
        "position": "both",
        "pool": "mean",
        "trunk": trunk_digest(model),
    }
    return Probes(**(settings | changes))


def library(speaker: Speaker, prompts: dict[str, torch.Tensor], **kwargs: Any) -> torch.Tensor:
    found: torch.Tensor = speaker.model.generate(**prompts, **kwargs)
    return found


# ---- the library's answers


def test_without_companions_answers_are_the_librarys(speak: Speak, tokenizer: Any) -> None:
    speaker, prompts = speak(), padded(tokenizer)
    said = speaker.generate(**prompts, max_new_tokens=9, do_sample=False)
    assert torch.equal(said.sequences, library(speaker, prompts, max_new_tokens=9, do_sample=False))
    assert (said.vetoed.tolist(), said.confidence, said.abstained) == ([False] * 3, None, None)


@pytest.mark.parametrize("options", [{"do_sample": False}, {"num_beams": 3, "do_sample": False}, {"do_sample": True}])
def test_a_guard_that_vetoes_nothing_changes_nothing(
    speak: Speak, build: Any, tokenizer: Any, make_guard: Callable[..., Guard], options: dict[str, Any]
) -> None:
    model = build()
    speaker, prompts = speak(model, anchor=make_guard(model, every=2, running=1e9)), padded(tokenizer)
    torch.manual_seed(5)
    said = speaker.generate(**prompts, max_new_tokens=9, **options)
    torch.manual_seed(5)
    assert torch.equal(said.sequences, library(speaker, prompts, max_new_tokens=9, **options))


def test_several_answers_to_a_prompt_are_the_librarys(
    speak: Speak, build: Any, tokenizer: Any, make_guard: Callable[..., Guard]
) -> None:
    model = build()
    speaker, prompts = speak(model, anchor=make_guard(model), probes=probes_for(model)), padded(tokenizer)
    options: dict[str, Any] = {"do_sample": True, "num_return_sequences": 2, "max_new_tokens": 4}
    torch.manual_seed(5)
    said = speaker.generate(**prompts, **options, confidence=True, domain=["general", "medical", "general"])
    torch.manual_seed(5)
    assert torch.equal(said.sequences, library(speaker, prompts, **options))
    assert said.confidence is not None and said.confidence.shape == said.vetoed.shape == (6,)


def test_texts_and_dialogues_are_padded_on_the_left(speak: Speak, tokenizer: Any) -> None:
    speaker = speak()
    texts = speaker.generate(text=PROMPTS, max_new_tokens=5, do_sample=False)
    assert torch.equal(texts.sequences, library(speaker, padded(tokenizer), max_new_tokens=5, do_sample=False))
    dialogues = [[{"role": "user", "content": text}] for text in PROMPTS]
    rendered = [f"<user> {text}<asst>" for text in PROMPTS]
    said = speaker.generate(messages=dialogues, max_new_tokens=5, do_sample=False)
    assert torch.equal(said.sequences, library(speaker, padded(tokenizer, rendered), max_new_tokens=5, do_sample=False))
    assert tokenizer.padding_side == "right"


def test_one_text_and_one_dialogue_are_a_batch_of_one(speak: Speak) -> None:
    speaker = speak()
    assert len(speaker.generate(text="the cat", max_new_tokens=2).texts) == 1
    assert len(speaker.generate(messages=[{"role": "user", "content": "the cat"}], max_new_tokens=2).texts) == 1


def test_padding_that_nobody_masked_is_told_by_its_token(speak: Speak, tokenizer: Any) -> None:
    speaker, prompts = speak(), padded(tokenizer)
    said = speaker.generate(prompts["input_ids"], max_new_tokens=5, do_sample=False)
    assert torch.equal(said.sequences, library(speaker, prompts, max_new_tokens=5, do_sample=False))


def test_answers_are_texts_without_special_tokens_up_to_their_end(speak: Speak, build: Any, tokenizer: Any) -> None:
    speaker = speak(one_answer(build(options={"tie_word_embeddings": False}), tokenizer, " the<end>"))
    said = speaker.generate(text=["the", "o gato"], max_new_tokens=6, do_sample=False)
    assert said.texts == ("the", "the")
    assert bool((said.sequences[:, -1] == tokenizer.convert_tokens_to_ids("<end>")).all())


def test_random_state_stays_as_it_was_unless_the_library_draws(
    speak: Speak, build: Any, make_guard: Callable[..., Guard]
) -> None:
    model = build()
    speaker = speak(model, anchor=make_guard(model, every=1), probes=probes_for(model))
    torch.manual_seed(3)
    before = torch.get_rng_state()
    speaker.generate(text=PROMPTS, max_new_tokens=4, do_sample=False, confidence=True, abstain=True)
    assert torch.equal(torch.get_rng_state(), before)


def test_forward_is_the_models(speak: Speak, ids: torch.Tensor) -> None:
    speaker = speak()
    with torch.no_grad():
        expected = speaker.model(ids).logits
        assert torch.equal(speaker(ids).logits, expected)
        assert torch.equal(speaker.forward(input_ids=ids).logits, expected)


# ---- vetoes


def threshold_between(speaker: Speaker, prompts: dict[str, torch.Tensor], vetoed: int) -> float:
    """A plane that vetoes the prompts with the ``vetoed`` highest first numbers of their last final state."""
    positions = (prompts["attention_mask"].cumsum(1) - 1).clamp(min=0)
    with torch.no_grad():
        states = speaker.model.model(**prompts, position_ids=positions).last_hidden_state[:, -1, 0]
    ordered = states.sort(descending=True).values
    return float((ordered[vetoed - 1] + ordered[vetoed]) / 2)


def test_a_veto_replaces_its_row_and_no_other(
    speak: Speak, tokenizer: Any, make_guard: Callable[..., Guard], build: Any
) -> None:
    model, prompts = build(), padded(tokenizer)
    plain = speak(model).generate(**prompts, max_new_tokens=9, do_sample=False)
    at = threshold_between(speak(model), prompts, 1)
    said = speak(model, anchor=make_guard(model, at=at)).generate(**prompts, max_new_tokens=9, do_sample=False)
    row = said.vetoed.tolist().index(True)
    assert said.vetoed.sum() == 1
    assert said.texts[row] == "no ."
    for other in {0, 1, 2} - {row}:
        assert torch.equal(said.sequences[other], plain.sequences[other])
    width = prompts["input_ids"].shape[1]
    new = [token for token in said.sequences[row, width:].tolist() if token != tokenizer.pad_token_id]
    assert tokenizer.decode(new) == " no .<end>"
    assert torch.equal(said.sequences[:, :width], prompts["input_ids"])


def test_prompts_that_are_all_vetoed_are_not_given_to_the_model(
    speak: Speak, build: Any, make_guard: Callable[..., Guard], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = build()
    attach(model, "probes", probes_for(model))
    speaker = speak(model, anchor=make_guard(model, at=-1e9))
    monkeypatch.setattr(type(model), "generate", lambda *_, **__: pytest.fail("the model was asked"))
    said = speaker.generate(text=PROMPTS, confidence=True)
    assert (said.texts, said.vetoed.tolist()) == (("no .",) * 3, [True] * 3)
    assert said.confidence is not None and said.confidence.isnan().all()
    assert said.abstained is not None and not said.abstained.any()


def test_an_answer_that_goes_wrong_is_taken_back(speak: Speak, build: Any, make_guard: Callable[..., Guard]) -> None:
    model = build()
    guard = make_guard(model, every=2, running=-2e9)  # prompts pass, answers never do
    said = speak(model, anchor=guard).generate(text=PROMPTS, max_new_tokens=5, do_sample=False)
    assert (said.texts, said.vetoed.tolist()) == (("no .",) * 3, [True] * 3)


def test_a_model_that_computes_nan_says_nothing(speak: Speak, build: Any, make_guard: Callable[..., Guard]) -> None:
    model = build()
    guard = make_guard(model)
    with torch.no_grad():
        model.model.layers[1].self_attn.o_proj.weight.fill_(float("nan"))
    said = speak(model, anchor=guard).generate(text=PROMPTS, max_new_tokens=5, do_sample=False)
    assert said.vetoed.all()


def test_a_refusal_longer_than_the_answers_is_said_whole(
    speak: Speak, build: Any, tokenizer: Any, make_guard: Callable[..., Guard]
) -> None:
    model, prompts = build(), padded(tokenizer)
    refusal = "sorry , the cat and the dog can not help with that ."
    at = threshold_between(speak(model), prompts, 2)
    said = speak(model, anchor=make_guard(model, at=at, refusal=refusal)).generate(
        **prompts, max_new_tokens=1, do_sample=False
    )
    assert said.vetoed.sum() == 2
    assert [text for text, veto in zip(said.texts, said.vetoed, strict=True) if veto] == [refusal] * 2


def test_a_faulty_anchor_is_an_error_and_no_answer(speak: Speak, build: Any, make_guard: Callable[..., Guard]) -> None:
    model = build()
    guard = make_guard(model)
    guard.anchor.weight = None  # type: ignore[attr-defined]
    with pytest.raises(AttributeError):
        speak(model, anchor=guard).generate(text="the cat")


# ---- confidence


def test_confidence_is_what_the_probes_read(speak: Speak, build: Any, tokenizer: Any) -> None:
    model = build(num_experts_per_tok=1)
    probes = probes_for(model)
    prompts = padded(tokenizer, [PROMPTS[0]])
    said = speak(model, probes=probes).generate(
        **prompts, max_new_tokens=6, do_sample=False, confidence=True, domain="general"
    )
    with torch.no_grad():
        states = model.model(input_ids=said.sequences, output_hidden_states=True, use_cache=False).hidden_states
    width = prompts["input_ids"].shape[1]
    spoken = torch.ones(1, said.sequences.shape[1] - width, dtype=torch.bool)
    expected = probes.read(states, width - 1, spoken, "general")
    assert said.confidence is not None and said.token_confidence is not None and said.abstained is not None
    torch.testing.assert_close(said.confidence, expected.calibrated)
    assert said.token_confidence.shape == (1, said.sequences.shape[1] - width)
    assert said.abstained.tolist() == (~expected.answer).tolist()


def test_confidence_in_a_batch_is_that_of_each_prompt_alone(speak: Speak, build: Any) -> None:
    model = build(num_experts_per_tok=1)
    speaker = speak(model, probes=probes_for(model))
    options: dict[str, Any] = {"max_new_tokens": 4, "do_sample": False, "confidence": True}
    together = speaker.generate(text=PROMPTS, **options)
    alone = torch.cat([speaker.generate(text=text, **options).confidence for text in PROMPTS])
    torch.testing.assert_close(together.confidence, alone, atol=1e-5, rtol=0)


def test_tokens_behind_an_end_have_no_confidence(speak: Speak, build: Any, tokenizer: Any) -> None:
    model = one_answer(build(options={"tie_word_embeddings": False}), tokenizer, " the<end>")
    said = speak(model, probes=probes_for(model)).generate(
        text=["the", "the cat"], max_new_tokens=6, do_sample=False, confidence=True
    )
    assert said.token_confidence is not None
    assert said.token_confidence.isfinite().all()
    ended = spoken_tokens(torch.tensor([[7, 4, 0, 0], [7, 8, 9, 4]]), [4, 1])
    assert ended.tolist() == [[True, True, False, False], [True, True, True, True]]


@pytest.mark.parametrize(("abstain", "text"), [(True, "I don't know."), ("não sei", "não sei")])
def test_doubtful_answers_are_withheld_on_request(speak: Speak, build: Any, abstain: bool | str, text: str) -> None:
    model = build()
    doubtful = probes_for(model, bias=torch.full((2,), -9.0))
    said = speak(model, probes=doubtful).generate(text=PROMPTS, max_new_tokens=3, do_sample=False, abstain=abstain)
    assert (said.texts, said.withheld.tolist()) == ((text,) * 3, [True] * 3)
    assert said.abstained is not None and said.abstained.all()
    assert said.confidence is not None and bool((said.confidence < 0.01).all())
    assert said.token_confidence is not None and said.token_confidence.isnan().all()


def test_a_doubtful_answer_is_marked_but_said_without_the_request(speak: Speak, build: Any, tokenizer: Any) -> None:
    model = build()
    speaker = speak(model, probes=probes_for(model, bias=torch.full((2,), -9.0)))
    said = speaker.generate(**padded(tokenizer), max_new_tokens=3, do_sample=False, confidence=True)
    assert torch.equal(said.sequences, library(speaker, padded(tokenizer), max_new_tokens=3, do_sample=False))
    assert said.abstained is not None and said.abstained.all() and not said.withheld.any()


def test_a_vetoed_answer_is_a_refusal_and_no_abstention(
    speak: Speak, build: Any, tokenizer: Any, make_guard: Callable[..., Guard]
) -> None:
    model, prompts = build(), padded(tokenizer)
    attach(model, "probes", probes_for(model, bias=torch.full((2,), -9.0)))
    at = threshold_between(speak(model), prompts, 1)
    said = speak(model, anchor=make_guard(model, at=at)).generate(**prompts, max_new_tokens=3, abstain=True)
    assert said.abstained is not None and said.confidence is not None
    assert (said.vetoed ^ said.withheld).all() and torch.equal(said.abstained, said.withheld)
    assert torch.equal(said.confidence.isnan(), said.vetoed)
    assert {text for text, veto in zip(said.texts, said.vetoed, strict=True) if veto} == {"no ."}


# ---- a draft model


def draft_of(model: Any) -> Draft:
    """An untrained draft of the model: whatever it proposes, the words are the model's."""
    config = DrafterConfig(
        vocab_size=300,
        embedding_size=32,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=2,
        head_dim=8,
    )
    return Draft(network=make_drafter(config, seed=0), trunk=trunk_digest(model), vocabulary="")


def test_a_draft_speaks_in_the_models_words(speak: Speak, build: Any, make_guard: Callable[..., Guard]) -> None:
    model = build()
    attach(model, "probes", probes_for(model))
    speaker = speak(model, anchor=make_guard(model, every=2, running=1e9), draft=draft_of(model))
    options: dict[str, Any] = {"text": "the cat sat", "max_new_tokens": 12, "do_sample": False, "confidence": True}
    plain = speaker.generate(**options)
    for _ in range(2):
        fast = speaker.generate(**options, speculative=True)
        assert torch.equal(fast.sequences, plain.sequences)
        assert torch.equal(fast.confidence, plain.confidence)
    assert speaker.stale() == ()


def test_a_draft_does_not_hurry_past_the_anchor(speak: Speak, build: Any, make_guard: Callable[..., Guard]) -> None:
    model = build()
    speaker = speak(model, anchor=make_guard(model, every=4, running=-2e9), draft=draft_of(model))
    said = speaker.generate(text="the cat sat", max_new_tokens=12, do_sample=False, speculative=True)
    assert said.texts == ("no .",)


# ---- stock families


@pytest.mark.parametrize("family", ["mixtral", "olmoe", "qwen3_moe"])
def test_stock_families_speak_too(
    speak: Speak, context: Any, tokenizer: Any, make_guard: Callable[..., Guard], family: str
) -> None:
    ready = context()
    model = ready.registry.build("model", "stock", {"family": family}, context=ready).build(0).eval()
    attach(model, "probes", probes_for(model))
    prompts = padded(tokenizer)
    speaker = speak(model, anchor=make_guard(model, every=1, running=1e9))
    said = speaker.generate(**prompts, max_new_tokens=4, do_sample=False, confidence=True)
    assert torch.equal(said.sequences, library(speaker, prompts, max_new_tokens=4, do_sample=False))
    vetoed = speak(model, anchor=make_guard(model, at=threshold_between(speaker, prompts, 2))).generate(
        **prompts, max_new_tokens=4
    )
    assert vetoed.vetoed.sum() == 2


# ---- mistakes


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({}, "one of input_ids, text and messages"),
        ({"text": "the", "messages": [{"role": "user", "content": "the"}]}, "one of input_ids, text and messages"),
        ({"text": "the", "confidence": True}, "has no confidence probes"),
        ({"text": "the", "abstain": True}, "has no confidence probes"),
        ({"text": "the", "speculative": True}, "has no draft model"),
        ({"text": "the", "return_dict_in_generate": True}, "generate returns Answers"),
        ({"text": []}, "was given no prompt"),
        ({"input_ids": torch.zeros(1, 0, dtype=torch.int64)}, "a prompt without tokens"),
    ],
)
def test_mistakes_are_told_in_one_sentence(speak: Speak, given: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        speak().generate(**given)


def test_prompts_padded_on_the_right_are_refused(speak: Speak, tokenizer: Any) -> None:
    prompts = dict(tokenizer(PROMPTS, return_tensors="pt", padding=True, padding_side="right"))
    with pytest.raises(ConfigError, match="pad them on the left"):
        speak().generate(**prompts)


def test_a_stream_would_show_what_a_veto_takes_back(speak: Speak, build: Any, make_guard: Callable[..., Guard]) -> None:
    model = build()
    with pytest.raises(ConfigError, match="before the answer is judged"):
        speak(model, anchor=make_guard(model)).generate(text="the", streamer=object())


def test_speculation_takes_one_prompt(speak: Speak, build: Any) -> None:
    model = build()
    with pytest.raises(ConfigError, match="one prompt at a time, and 3 were given"):
        speak(model, draft=draft_of(model)).generate(text=PROMPTS, speculative=True)


def test_a_domain_without_weight_is_told(speak: Speak, build: Any) -> None:
    model = build()
    with pytest.raises(ConfigError, match=r"know no domain 'medcal'. Did you mean 'medical'"):
        speak(model, probes=probes_for(model)).generate(text="the", confidence=True, domain="medcal", max_new_tokens=2)


def test_messages_need_a_chat_template(speak: Speak, tokenizer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    speaker = speak()
    monkeypatch.setattr(tokenizer, "chat_template", None)
    with pytest.raises(ConfigError, match="has no chat template"):
        speaker.generate(messages=[{"role": "user", "content": "the"}])


def test_stale_companions_are_named(speak: Speak, build: Any, make_guard: Callable[..., Guard]) -> None:
    model = build()
    speaker = speak(model, anchor=make_guard(model), probes=probes_for(model))
    assert speaker.stale() == ()
    with torch.no_grad():
        model.model.norm.weight[0] += 1.0
    assert speaker.stale() == ("anchor", "probes")


# ---- parts


def test_an_answer_is_rendered_as_the_template_does(tokenizer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    assert tokenizer.decode(encode_answer(tokenizer, "no .")) == " no .<end>"
    monkeypatch.setattr(tokenizer, "chat_template", None)
    assert tokenizer.decode(encode_answer(tokenizer, "no .")) == "no .<eos>"


def test_replaced_rows_are_padded_to_the_longest() -> None:
    new = torch.tensor([[5, 6], [7, 8]])
    where = torch.tensor([False, True])
    assert replace_rows(new, where, [1, 2, 3], 0).tolist() == [[5, 6, 0], [1, 2, 3]]
    assert replace_rows(new, where, [1], 0).tolist() == [[5, 6], [1, 0]]
    assert replace_rows(new, ~where & where, [1, 2, 3], 0) is new


def test_answers_are_compared_by_identity() -> None:
    empty = torch.zeros(0)
    first = Answers(sequences=empty, texts=(), vetoed=empty, withheld=empty)
    assert first != Answers(sequences=empty, texts=(), vetoed=empty, withheld=empty)


def test_nothing_is_warned_of_in_ordinary_use(
    speak: Speak, build: Any, make_guard: Callable[..., Guard], caplog: pytest.LogCaptureFixture
) -> None:
    model = build()
    speaker = speak(model, anchor=make_guard(model, every=1), probes=probes_for(model))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        speaker.generate(text=PROMPTS, max_new_tokens=3, confidence=True)
    assert caplog.records == []


def one_answer(model: Any, tokenizer: Any, answer: str) -> Any:
    """Make the untied model say the two tokens of ``answer`` whatever it is asked."""
    first, end = tokenizer(answer, add_special_tokens=False)["input_ids"]
    with torch.no_grad():
        model.model.norm.weight.fill_(1.0)
        for layer in model.model.layers:
            layer.self_attn.o_proj.weight.zero_()
            layer.mlp.experts.down_proj.zero_()
        # Every other token leads to the first of the answer, and that to its end.
        model.model.embed_tokens.weight.zero_()
        model.model.embed_tokens.weight[:, 0] = 1.0
        model.model.embed_tokens.weight[first] = torch.eye(32)[1]
        model.lm_head.weight.zero_()
        model.lm_head.weight[first, 0] = model.lm_head.weight[end, 1] = 1.0
    return model
