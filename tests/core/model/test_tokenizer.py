from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from phasegate.core.config.schema import TokenizerSection
from phasegate.core.model.tokenizer import (
    CHAT_TEMPLATE,
    SPECIAL_TOKENS,
    load_tokenizer,
    make_tokenizer,
    stop_tokens,
    train_tokenizer,
)
from phasegate.registry.errors import ConfigError

TEXT = ["the cat sat on the mat with the hat and the bat", "the dog ate 12 345 bones , the end"] * 3
SMALL = train_tokenizer(TEXT, 270)
CHAT = [
    {"role": "user", "content": "what is it ?"},
    {"role": "assistant", "content": "the cat"},
    {"role": "user", "content": "and then ?"},
    {"role": "assistant", "content": "the dog"},
]


@settings(max_examples=200, deadline=None)
@given(st.text(st.characters(exclude_categories=("Cs",))))
def test_any_text_comes_back_unchanged(text: str) -> None:
    assert SMALL.decode(SMALL(text)["input_ids"]) == text


@pytest.mark.parametrize(
    "text", ["  two  spaces \n\t", "a , b . c ?", "maçã 日本 👩‍👩‍👧", "<end> and <pad>", "1.5e-3", "don 't"]
)
def test_texts_that_tokenizers_like_to_clean_come_back_unchanged(text: str) -> None:
    assert SMALL.decode(SMALL(text)["input_ids"]) == text


def test_every_digit_is_a_token_of_its_own() -> None:
    rich = train_tokenizer(["12345 12345 12345 year 2024 2024 2024"] * 20, 265)
    assert rich.tokenize("12345") == ["1", "2", "3", "4", "5"]
    with_digit = [token for token in rich.get_vocab() if any(c.isdigit() for c in token)]
    assert not [token for token in with_digit if len(token.removeprefix("Ġ")) > 1]


def test_a_digit_behind_a_space_is_one_token_like_a_word() -> None:
    rich = train_tokenizer(["3 plus 4 is 7 , 3 plus 3 is 6"] * 20, 272)
    assert rich.tokenize(" plus 3") == ["Ġplus", "Ġ3"]


def test_special_tokens_come_first_and_have_their_roles() -> None:
    assert [SMALL.convert_ids_to_tokens(i) for i in range(5)] == list(SPECIAL_TOKENS)
    assert (SMALL.pad_token, SMALL.eos_token, SMALL.bos_token) == ("<pad>", "<eos>", "<eos>")
    assert SMALL.decode(SMALL("<user> hi<end>")["input_ids"], skip_special_tokens=True) == " hi"


def test_nothing_is_added_around_a_text() -> None:
    assert SMALL("the cat")["input_ids"] == SMALL.convert_tokens_to_ids(SMALL.tokenize("the cat"))


def test_more_special_tokens_can_be_asked_for() -> None:
    more = train_tokenizer(TEXT, 270, special=(*SPECIAL_TOKENS, "<tool>"))
    assert more.tokenize("a<tool>b") == ["a", "<tool>", "b"]


def test_the_vocabulary_has_the_size_that_was_asked_for() -> None:
    assert len(SMALL) == 270


def test_merges_are_the_most_frequent_pairs() -> None:
    # "xy xy xy xy": the pair (x, y) occurs four times, then (space, xy) three times.
    tokenizer = train_tokenizer(["xy xy xy xy"], 263)
    assert tokenizer.convert_ids_to_tokens([261, 262]) == ["xy", "Ġxy"]


def test_equal_texts_give_equal_tokenizers_in_any_process_and_on_any_number_of_threads() -> None:
    program = (
        "import sys, hashlib\n"
        "from phasegate.core.model.tokenizer import train_tokenizer\n"
        "words = [f'{a}{b} {b}{a} {a}{a}' for a in 'abcdefgh' for b in 'stuvwxyz']\n"
        "t = train_tokenizer(words * 3, 320)\n"
        "print(hashlib.sha256(t.backend_tokenizer.to_str().encode()).hexdigest())\n"
    )
    seen = {
        subprocess.run(
            [sys.executable, "-c", program],
            env={**os.environ, "PYTHONHASHSEED": seed, "RAYON_NUM_THREADS": threads, "HF_HUB_OFFLINE": "1"},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed, threads in (("0", "1"), ("1", "2"))
    }
    assert len(seen) == 1


def test_a_vocabulary_smaller_than_the_bytes_names_the_minimum() -> None:
    with pytest.raises(ConfigError, match=r"260.*at least 261"):
        train_tokenizer(TEXT, 260)


def test_the_smallest_vocabulary_has_bytes_and_special_tokens_only() -> None:
    assert len(train_tokenizer(TEXT, 261)) == 261


def test_too_few_merges_are_reported() -> None:
    with pytest.warns(UserWarning, match=r"has \d+ tokens instead of 1000"):
        tokenizer = train_tokenizer(["a b c"], 1000)
    assert len(tokenizer) < 1000


def test_no_text_is_an_error() -> None:
    with pytest.raises(ConfigError, match=r"no text"):
        train_tokenizer(["", ""], 300)


def test_special_tokens_that_chats_need_must_be_there() -> None:
    with pytest.raises(ConfigError, match=r"<asst>"):
        train_tokenizer(TEXT, 300, special=("<pad>", "<eos>", "<user>", "<end>"))


def test_a_template_that_marks_no_answer_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"generation"):
        train_tokenizer(TEXT, 300, "{{ messages }}{% if add_generation_prompt %}<asst>{% endif %}")


def test_a_chat_is_written_with_its_special_tokens() -> None:
    assert SMALL.apply_chat_template(CHAT[:2], tokenize=False) == "<user> what is it ?<asst> the cat<end>"


def test_the_assistant_mask_covers_answers_and_their_end_tokens() -> None:
    coded = SMALL.apply_chat_template(CHAT, return_dict=True, return_assistant_tokens_mask=True)
    answered = [i for i, marked in zip(coded["input_ids"], coded["assistant_masks"], strict=True) if marked]
    assert SMALL.decode(answered) == " the cat<end> the dog<end>"
    assert 0 < sum(coded["assistant_masks"]) < len(coded["input_ids"])


def test_a_prompt_is_a_prefix_of_its_chat_in_tokens() -> None:
    prompt = SMALL.apply_chat_template(CHAT[:1], add_generation_prompt=True, return_dict=True)["input_ids"]
    whole = SMALL.apply_chat_template(CHAT[:2], return_dict=True)["input_ids"]
    assert whole[: len(prompt)] == prompt
    assert SMALL.decode(prompt).endswith("<asst>")


def test_the_first_word_of_an_answer_is_the_token_it_is_in_running_text() -> None:
    coded = SMALL.apply_chat_template(CHAT[:2], return_dict=True)["input_ids"]
    running = SMALL("of the cat")["input_ids"]
    after = coded.index(SMALL.convert_tokens_to_ids("<asst>")) + 1
    assert coded[after] in running


def test_an_unknown_role_is_an_error() -> None:
    with pytest.raises(Exception, match=r"roles are system, user and assistant, not tool"):
        SMALL.apply_chat_template([{"role": "tool", "content": "x"}], tokenize=False)


def test_answers_stop_at_end_of_answer_or_end_of_text() -> None:
    assert SMALL.convert_ids_to_tokens(stop_tokens(SMALL)) == ["<end>", "<eos>"]


def test_a_saved_tokenizer_is_loaded_unchanged(tmp_path: Path) -> None:
    SMALL.save_pretrained(tmp_path)
    loaded = load_tokenizer(tmp_path)
    text = "the cat ate 12 maçã , 3 . <end>"
    assert loaded(text)["input_ids"] == SMALL(text)["input_ids"]
    assert loaded.decode(loaded(text)["input_ids"]) == text
    masks = [
        each.apply_chat_template(CHAT, return_dict=True, return_assistant_tokens_mask=True)["assistant_masks"]
        for each in (loaded, SMALL)
    ]
    assert masks[0] == masks[1]


def test_a_missing_tokenizer_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"No tokenizer can be read"):
        load_tokenizer(tmp_path / "nothing")


def test_an_experiment_trains_on_its_first_documents_with_the_derived_size() -> None:
    texts = (text for text in ["cat cat cat cat", "dog dog dog dog"])
    tokenizer = make_tokenizer(TokenizerSection(documents=1), texts, 263)
    assert "cat" in tokenizer.get_vocab() or "Ġcat" in tokenizer.get_vocab()
    assert next(texts) == "dog dog dog dog"


def test_an_experiment_can_name_a_tokenizer_and_another_template(tmp_path: Path) -> None:
    SMALL.save_pretrained(tmp_path)
    template = CHAT_TEMPLATE.replace("<user> ", "<user>Q: ")
    tokenizer = make_tokenizer(TokenizerSection(path=str(tmp_path), chat_template=template), (), 300)
    assert tokenizer.apply_chat_template(CHAT[:1], tokenize=False) == "<user>Q: what is it ?"
