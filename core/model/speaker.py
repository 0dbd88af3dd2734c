"""A model that speaks with what travels with it: an anchor that vetoes, probes that doubt, a draft that hurries."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Self

import torch

from ...registry.errors import ConfigError
from .answers import Answers, encode_answer, encode_prompts, replace_rows, spoken_tokens
from .companions import companions_of

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

    from .anchors import Guard
    from .probes import Reading

ABSTENTION = "I don't know."


class Speaker:
    """A causal language model with its tokenizer and companions.

    ``generate`` is the library's, with a veto before and after it; ``model`` is the bare model, which vetoes nothing.
    """

    def __init__(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast) -> None:
        self.model = model
        self.tokenizer = tokenizer
        self._assistant: Any = None

    @property
    def companions(self) -> Mapping[str, Any]:
        """What travels with the model, by name: ``anchor``, ``draft``, ``probes``."""
        return companions_of(self.model)

    def stale(self) -> tuple[str, ...]:
        """Names of companions that belong to other weights than the model has now; reads all weights."""
        return tuple(name for name, one in self.companions.items() if hasattr(one, "stale") and one.stale(self.model))

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """The model's ``forward``."""
        return self.model(*args, **kwargs)

    forward = __call__

    def to(self, device: str | torch.device) -> Self:
        """Move the model, and with it everything that is computed."""
        self.model.to(device)
        self._assistant = None
        return self

    @torch.no_grad()
    def generate(
        self,
        input_ids: torch.Tensor | None = None,
        *,
        text: str | Sequence[str] | None = None,
        messages: Any = None,
        confidence: bool = False,
        abstain: bool | str = False,
        domain: str | Sequence[str] | None = None,
        speculative: bool | None = None,
        **kwargs: Any,
    ) -> Answers:
        """Answer prompts: ``input_ids`` (B, T), padded on the left, or ``text``, or ``messages`` (one dialogue or a
        list of them). Further arguments go to the library's ``generate``.

        With a safety anchor, a vetoed prompt or answer becomes the guard's refusal. ``confidence`` adds what the
        probes say, for questions of ``domain`` (one for all or one per prompt; None is the strictest); ``abstain`` puts
        "I don't know." (or the text it is given) in place of answers on which they decide not to answer.
        ``speculative`` lets the draft model propose tokens. A model whose anchor fails says nothing: errors are raised,
        and hidden states that are no numbers are a veto.
        Random state changes only if ``do_sample`` draws. Raises ``ConfigError`` for what the model does not have.
        """
        ids, mask = self._prompts(input_ids, kwargs.pop("attention_mask", None), text, messages)
        guard: Guard | None = self.companions.get("anchor")
        probes = self._probes() if confidence or abstain else None
        self._refuse(kwargs, watched=guard is not None or probes is not None)
        if speculative:
            kwargs["assistant_model"] = self._draft(len(ids))
        width = ids.shape[1]
        vetoed = torch.zeros(len(ids), dtype=torch.bool, device=ids.device)
        if guard is not None:
            vetoed = guard.vetoes(self._states(ids, mask)[-1][:, -1])
        if bool(vetoed.all()):
            sequences = ids.repeat_interleave(int(kwargs.get("num_return_sequences") or 1), dim=0)
        else:
            sequences = self.model.generate(input_ids=ids, attention_mask=mask, **kwargs)
        rows = len(sequences) // len(ids)  # more than one with num_return_sequences
        vetoed, mask = vetoed.repeat_interleave(rows), mask.repeat_interleave(rows, dim=0)
        new = sequences[:, width:]
        spoken = spoken_tokens(new, self._ends(kwargs))
        states: tuple[torch.Tensor, ...] = ()
        if new.shape[1] and ((guard is not None and guard.every) or probes is not None):
            states = self._states(sequences, torch.cat([mask, spoken.to(mask.dtype)], 1), probes is not None)
        if guard is not None and states:
            vetoed = vetoed | guard.vetoes_answers(states[-1][:, width:], spoken)
        reading = None
        if probes is not None and states:
            if domain is not None and not isinstance(domain, str):
                domain = [one for one in domain for _ in range(rows)]
            reading = probes.read(states, width - 1, spoken, domain)
        answers = self._spoken(sequences[:, :width], new, vetoed, reading, abstain, guard)
        return answers if probes is None else _with_confidence(answers, width, reading)

    # ---- prompts

    def _prompts(
        self, ids: torch.Tensor | None, mask: torch.Tensor | None, text: str | Sequence[str] | None, messages: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        if sum(given is not None for given in (ids, text, messages)) != 1:
            raise ConfigError("generate takes one of input_ids, text and messages; give exactly one of them.")
        if not len(next(given for given in (ids, text, messages) if given is not None)):
            raise ConfigError("generate was given no prompt; give at least one.")
        if ids is None:
            if messages is not None and not self.tokenizer.chat_template:
                raise ConfigError("The model's tokenizer has no chat template to pose messages with; give text.")
            ids, mask = encode_prompts(self.tokenizer, text, messages)
        elif mask is None:
            # As the library does: padding is told by its token, unless that may also end a text.
            pad = self.model.generation_config.pad_token_id
            certain = pad is not None and pad not in self._ends({})
            mask = (ids != pad).long() if certain else torch.ones_like(ids)
        if not ids.numel():
            raise ConfigError("generate was given a prompt without tokens; give at least one.")
        if not bool(mask[:, -1].all()):
            raise ConfigError(
                "The prompts are padded on the right, so that answers would follow padding; pad them on the left "
                "(padding_side='left')."
            )
        return ids.to(self.model.device), mask.to(self.model.device)

    def _refuse(self, kwargs: Mapping[str, Any], *, watched: bool) -> None:
        if kwargs.get("return_dict_in_generate"):
            raise ConfigError(
                "generate returns Answers; for the library's own outputs use speaker.model.generate, which vetoes "
                "nothing."
            )
        if watched and kwargs.get("streamer") is not None:
            raise ConfigError(
                "A stream shows tokens before the answer is judged as a whole; leave streamer out, or use "
                "speaker.model.generate, which vetoes nothing."
            )

    def _ends(self, kwargs: Mapping[str, Any]) -> list[int]:
        config = kwargs.get("generation_config") or self.model.generation_config
        ends = kwargs.get("eos_token_id", config.eos_token_id)
        return [] if ends is None else [ends] if isinstance(ends, int) else [int(end) for end in ends]

    # ---- companions

    def _probes(self) -> Any:
        probes = self.companions.get("probes")
        if probes is None:
            raise ConfigError(
                "This model has no confidence probes, so it cannot say how sure it is; fit them in a step with "
                "objective: probes, or leave confidence and abstain out."
            )
        return probes

    def _draft(self, prompts: int) -> Any:
        draft = self.companions.get("draft")
        if draft is None:
            raise ConfigError(
                "This model has no draft model to propose tokens; train one in a step with objective: draft, or leave "
                "speculative out."
            )
        if prompts > 1:
            raise ConfigError(
                f"Speculative decoding takes one prompt at a time, and {prompts} were given; pose them one by one."
            )
        if self._assistant is None:
            self._assistant = draft.assistant(self.model)
        return self._assistant

    def _states(self, ids: torch.Tensor, mask: torch.Tensor, every: bool = False) -> tuple[torch.Tensor, ...]:
        """Hidden states (B, T, d) of the embedding and every layer, the last after the last norm; or only that."""
        positions = (mask.cumsum(1) - 1).clamp(min=0)
        found = self.model.get_decoder()(
            input_ids=ids, attention_mask=mask, position_ids=positions, use_cache=False, output_hidden_states=every
        )
        return tuple(found.hidden_states) if every else (found.last_hidden_state,)

    # ---- answers

    def _spoken(
        self,
        prompts: torch.Tensor,
        new: torch.Tensor,
        vetoed: torch.Tensor,
        reading: Reading | None,
        abstain: bool | str,
        guard: Guard | None,
    ) -> Answers:
        """The answers with another text in place of those that must not, or should rather not, be given."""
        pad = self.model.generation_config.pad_token_id or 0
        withheld = torch.zeros_like(vetoed)
        if abstain and reading is not None:
            withheld = ~reading.answer & ~vetoed
            text = abstain if isinstance(abstain, str) else ABSTENTION
            new = replace_rows(new, withheld, encode_answer(self.tokenizer, text), pad)
        if guard is not None:
            new = replace_rows(new, vetoed, encode_answer(self.tokenizer, guard.refusal), pad)
        texts = self.tokenizer.batch_decode(new, skip_special_tokens=True)
        return Answers(
            sequences=torch.cat([prompts, new], 1),
            texts=tuple(text.strip() for text in texts),
            vetoed=vetoed,
            withheld=withheld,
        )


def _with_confidence(answers: Answers, width: int, reading: Reading | None) -> Answers:
    """Add what the probes read; nothing was read where every prompt was vetoed."""
    rows, length = answers.sequences[:, width:].shape
    tokens = torch.full((rows, length), torch.nan, device=answers.sequences.device)
    confidence = torch.full((rows,), torch.nan, device=answers.sequences.device)
    abstained = torch.zeros_like(answers.vetoed)
    if reading is not None:
        tokens[:, : reading.tokens.shape[1]] = reading.tokens
        tokens[answers.vetoed | answers.withheld] = torch.nan
        confidence = reading.calibrated.masked_fill(answers.vetoed, torch.nan)
        abstained = ~reading.answer & ~answers.vetoed
    return replace(answers, token_confidence=tokens, confidence=confidence, abstained=abstained)
