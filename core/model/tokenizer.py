"""The tokenizer: byte-level BPE trained on the experiment's text, with a chat template that marks what is learned."""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Iterable, Sequence
from itertools import islice
from typing import TYPE_CHECKING

from ...evals.foreign import strictly
from ...registry.errors import ConfigError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

    from ..config.schema import TokenizerSection

PAD, EOS, USER, ASSISTANT, END = SPECIAL_TOKENS = ("<pad>", "<eos>", "<user>", "<asst>", "<end>")

# The space after a role token makes the first word the token it is in running text; `<asst>` alone is a prefix of
# `<asst> answer`, so prompts tokenised with add_generation_prompt are prefixes of whole chats.
CHAT_TEMPLATE = (
    "{%- for message in messages -%}"
    "{%- if message['role'] == 'assistant' -%}"
    "{{- '<asst>' -}}{%- generation -%}{{- ' ' + message['content'] + '<end>' -}}{%- endgeneration -%}"
    "{%- elif message['role'] in ['system', 'user'] -%}"
    "{{- '<user> ' + message['content'] -}}"
    "{%- else -%}"
    "{{- raise_exception('roles are system, user and assistant, not ' + message['role']) -}}"
    "{%- endif -%}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{- '<asst>' -}}{%- endif -%}"
)

_BYTES = 256


def train_tokenizer(
    texts: Iterable[str],
    vocab_size: int,
    chat_template: str | None = None,
    special: Sequence[str] = SPECIAL_TOKENS,
) -> PreTrainedTokenizerFast:
    """Train a byte-level BPE tokenizer (Sennrich 2016, 1508.07909; bytes: GPT-2) that can spell any text.

    Every digit is a token of its own, with the space before it if there is one; no token joins words; equal texts
    give equal tokenizers. ``<eos>`` also separates documents. ``special`` must hold ``SPECIAL_TOKENS`` and may hold
    more. Warns when the text yields fewer tokens than asked for: then ``len(tokenizer) < vocab_size``.
    Raises ``ConfigError`` for a vocabulary below 256 + len(special), for missing special tokens, for no text, and
    for a chat template that marks no generation.
    """
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    minimum = _BYTES + len(special)
    if vocab_size < minimum:
        raise ConfigError(
            f"tokenizer.vocab_size is {vocab_size}, but 256 bytes and {len(special)} special tokens need at least "
            f"{minimum}; raise it, or leave it out and let the size decide."
        )
    if missing := [token for token in SPECIAL_TOKENS if token not in special]:
        raise ConfigError(
            f"Special tokens must include {', '.join(missing)}, which documents and chats are built with."
        )
    template = CHAT_TEMPLATE if chat_template is None else chat_template
    _require_generation(template, "tokenizer.chat_template")

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(" ?[0-9]"), "isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[AddedToken(token, special=True, normalized=False) for token in special],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    seen = _Counted(texts)
    tokenizer.train_from_iterator(seen, trainer)
    if not seen.characters:
        raise ConfigError("The tokenizer found no text to learn from; check that data.sources gives a text view.")
    if (size := tokenizer.get_vocab_size()) < vocab_size:
        warnings.warn(
            f"The tokenizer has {size} tokens instead of {vocab_size}: {seen.characters} characters of text hold no "
            "more pairs to merge; give it more text or a smaller tokenizer.vocab_size.",
            stacklevel=2,
        )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=EOS,
        eos_token=EOS,
        pad_token=PAD,
        extra_special_tokens=[token for token in special if token not in (PAD, EOS)],
        chat_template=template,
        clean_up_tokenization_spaces=False,
    )


def load_tokenizer(path: str | os.PathLike[str], chat_template: str | None = None) -> PreTrainedTokenizerFast:
    """Load a tokenizer from a folder (or, when online, a hub id); ``chat_template`` replaces its own.

    A tokenizer without padding token pads with its end token. Raises ``ConfigError`` when nothing readable is there.
    """
    from transformers import AutoTokenizer, PreTrainedConfig

    from .guarded import is_guarded

    # The library would look for the tokenizer's class by a model type that it does not know, and warn.
    options = {"config": PreTrainedConfig()} if is_guarded(path) else {}
    try:
        with strictly():
            tokenizer = AutoTokenizer.from_pretrained(os.fspath(path), trust_remote_code=False, **options)
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"No tokenizer can be read from '{os.fspath(path)}' ({_first_line(error)}); give a folder with "
            "tokenizer.json or a hub id, or leave tokenizer.path out to train one."
        ) from error
    tokenizer.init_kwargs.pop("auto_map", None)  # of code that stays behind
    if chat_template is not None:
        _require_generation(chat_template, "tokenizer.chat_template")
        tokenizer.chat_template = chat_template
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def make_tokenizer(section: TokenizerSection, texts: Iterable[str], vocab_size: int) -> PreTrainedTokenizerFast:
    """The experiment's tokenizer: loaded from ``section.path``, or trained on its first ``documents`` texts with
    ``section.vocab_size`` tokens (``vocab_size``, what the size derives, if it names none)."""
    if section.path is not None:
        return load_tokenizer(section.path, section.chat_template)
    size = vocab_size if section.vocab_size is None else section.vocab_size
    return train_tokenizer(islice(texts, section.documents), size, section.chat_template)


def stop_tokens(tokenizer: PreTrainedTokenizerFast) -> list[int]:
    """Ids that end a generated answer: ``<end>`` where the tokenizer has it, and its end-of-text token."""
    vocabulary = tokenizer.get_vocab()
    tokens = (END, tokenizer.eos_token)
    return list(dict.fromkeys(vocabulary[token] for token in tokens if token in vocabulary))


class _Counted:
    """An iterator over texts that counts the characters it hands out."""

    def __init__(self, texts: Iterable[str]) -> None:
        self.texts = iter(texts)
        self.characters = 0

    def __iter__(self) -> _Counted:
        return self

    def __next__(self) -> str:
        text = next(self.texts)
        self.characters += len(text)
        return text


def _require_generation(template: str, what: str) -> None:
    if not re.search(r"{%-?\s*generation\b", template):
        raise ConfigError(
            f"{what} has no {{% generation %}} block, so answers cannot be told from prompts and every token would be "
            "trained on; put {% generation %} … {% endgeneration %} around the assistant's content."
        )


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
