"""A model's own answers come with the states and probabilities that they were made from."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from phasegate.core.training.own_answers import AnswerBatch, own_answers
from phasegate.registry.errors import DataError

QUESTIONS = ["w1 w2", "w3 w4 w5 w6", "w7", "w8 w9 w10", "w11 w12"]
ENDS = {1, 4}


@pytest.fixture
def model(make_model: Callable[..., Any]) -> Any:
    return make_model().eval()


def answers(model: Any, tokenizer: Any, **changes: Any) -> list[AnswerBatch]:
    settings: dict[str, Any] = {"batch": 2, "new_tokens": 6}
    return list(own_answers(model, tokenizer, QUESTIONS, **(settings | changes)))


def prompt(tokenizer: Any, question: str) -> torch.Tensor:
    text = tokenizer.apply_chat_template(
        [{"role": "user", "content": question}], tokenize=False, add_generation_prompt=True
    )
    return torch.tensor([tokenizer(text, add_special_tokens=False)["input_ids"]])


def test_every_question_is_answered_once(model: Any, tokenizer: Any) -> None:
    places = [place for batch in answers(model, tokenizer) for place in batch.places]
    assert sorted(places) == [0, 1, 2, 3, 4]


def test_a_greedy_answer_is_what_the_library_generates_for_the_question_alone(model: Any, tokenizer: Any) -> None:
    for batch in answers(model, tokenizer):
        for place, text in zip(batch.places, batch.texts, strict=True):
            ids = prompt(tokenizer, QUESTIONS[place])
            alone = model.generate(
                ids, attention_mask=torch.ones_like(ids), max_new_tokens=6, do_sample=False, eos_token_id=sorted(ENDS)
            )
            assert text == tokenizer.decode(alone[0, ids.shape[1] :], skip_special_tokens=True).strip()


def test_each_state_predicts_the_token_that_it_stands_for(model: Any, tokenizer: Any) -> None:
    for batch in answers(model, tokenizer):
        likeliest = model.lm_head(batch.states[-1]).argmax(-1)
        for place, text, row, spoken in zip(batch.places, batch.texts, likeliest, batch.spoken, strict=True):
            assert tokenizer.decode(row[spoken], skip_special_tokens=True).strip() == text, place


def test_states_are_those_of_a_forward_pass_over_prompt_and_answer(model: Any, tokenizer: Any) -> None:
    (batch,) = own_answers(model, tokenizer, QUESTIONS[1:2], batch=1, new_tokens=4)
    ids = prompt(tokenizer, QUESTIONS[1])
    new = model.lm_head(batch.states[-1]).argmax(-1)
    with torch.no_grad():
        whole = model(torch.cat([ids, new], 1), output_hidden_states=True).hidden_states
    for layer, states in enumerate(batch.states):
        expected = whole[layer][:, ids.shape[1] - 1 : -1]
        assert torch.allclose(states, expected, atol=1e-5)


def test_an_answer_ends_with_the_token_that_ends_it(model: Any, tokenizer: Any) -> None:
    for batch in answers(model, tokenizer, new_tokens=12, batch=5):
        likeliest = model.lm_head(batch.states[-1]).argmax(-1)
        for row, spoken in zip(likeliest, batch.spoken, strict=True):
            inside = row[spoken].tolist()
            assert not ENDS & set(inside[:-1])
            assert len(inside) == batch.spoken.shape[1] or inside[-1] in ENDS


def test_probabilities_are_those_of_the_answers_own_tokens(model: Any, tokenizer: Any) -> None:
    for batch in answers(model, tokenizer):
        log_p = model.lm_head(batch.states[-1]).log_softmax(-1)
        for row, spoken, largest, total in zip(log_p, batch.spoken, batch.softmax, batch.log_probability, strict=True):
            own = row[spoken].max(-1).values  # a greedy answer's tokens are the likeliest ones
            assert float(largest) == pytest.approx(float(own.exp().mean().detach()), rel=1e-4)
            assert float(total) == pytest.approx(float(own.sum().detach()), rel=1e-4)


def test_sampled_answers_follow_from_the_random_stream(model: Any, tokenizer: Any) -> None:
    def drawn(seed: int) -> list[tuple[str, ...]]:
        torch.manual_seed(seed)
        return [batch.texts for batch in answers(model, tokenizer, sampled=True)]

    assert drawn(1) == drawn(1) != drawn(2)


def test_the_caller_can_stop_between_batches(model: Any, tokenizer: Any) -> None:
    asked = []
    answers(model, tokenizer, check=lambda: asked.append(1))
    assert len(asked) == 3


def test_a_tokenizer_without_a_chat_template_is_refused(model: Any, tokenizer: Any) -> None:
    tokenizer.chat_template = None
    with pytest.raises(DataError, match="no chat template"):
        answers(model, tokenizer)
