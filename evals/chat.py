"""Chat rows as prompts: what a tokenizer's template makes of them, and where an answer ends."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

Messages = Sequence[Mapping[str, str]]


def question_of(prompt: Messages) -> tuple[str, str] | None:
    """System text and question of a one-turn prompt; None for longer conversations, which lm-eval cannot pose."""
    roles = [message["role"] for message in prompt]
    if roles == ["user"]:
        return "", prompt[0]["content"]
    if roles == ["system", "user"]:
        return prompt[0]["content"], prompt[1]["content"]
    return None


def context_and_answer(tokenizer: Any, prompt: Messages, completion: Messages) -> tuple[str, str] | None:
    """The rendered prompt and the rendered rest up to the end of the answer; None where the template rewrites the
    prompt once an answer follows, so that there is no common context."""
    context = tokenizer.apply_chat_template(list(prompt), tokenize=False, add_generation_prompt=True)
    whole = tokenizer.apply_chat_template([*prompt, *completion], tokenize=False)
    return (context, whole[len(context) :]) if whole.startswith(context) and len(whole) > len(context) else None


def stop_tokens(tokenizer: Any, model: Any) -> list[int]:
    """Token ids that end an answer: end of text, the model's own, and what the template puts behind an answer.

    lm-eval stops a batch only when all its rows have met a stop text, and decodes without special tokens, so that
    text behind an early end would be scored; ids end each row by itself.
    """
    own = getattr(model.generation_config, "eos_token_id", None)
    found = set(own if isinstance(own, list) else [own]) | {tokenizer.eos_token_id}
    probe = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "bcd"}]
    tail = tokenizer.apply_chat_template(probe, tokenize=False).rpartition("bcd")[2]
    ids = tokenizer(tail, add_special_tokens=False)["input_ids"]
    if ids and ids[0] in tokenizer.added_tokens_decoder:
        found.add(ids[0])
    return sorted(token for token in found if token is not None)
