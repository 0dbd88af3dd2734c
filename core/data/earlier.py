"""What earlier steps of the curriculum leave to be replayed: their text mixture and their dialogues."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ...registry.errors import ConfigError, DataError
from ..config.conversions import CAUSAL
from ..config.schema import StepSection
from .corpus import Corpus
from .mixture import marginal, normalised
from .prepared import is_dialogue, packed_text, replayable_chats, text_domains
from .replay import Pool, ReplayStream

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

#: Objectives that teach the model what to say in a dialogue.
_SPOKEN = ("sft", "contrast")


def earlier_text(previous: Sequence[StepSection], corpus: Corpus) -> dict[str, float] | None:
    """The domain shares of all earlier causal steps together, each counted by its rows; None if there are none."""
    shares: dict[str, float] = {}
    for step in previous:
        if step.objective in CAUSAL:
            for name, share in marginal(step.batches, text_domains(corpus)).items():
                shares[name] = shares.get(name, 0.0) + share * step.steps * step.rows
    return normalised(shares) if shares else None


def build_replay(
    step: StepSection,
    previous: Sequence[StepSection],
    corpus: Corpus,
    tokenizer: PreTrainedTokenizerFast,
    length: int,
    key: tuple[Any, ...],
) -> ReplayStream | None:
    """The replay beside a step, if it asks for rows; ``ConfigError`` if nothing earlier has what it asks for.

    Rows are cut at ``replay.sequence_length``, or at ``length`` if that is not given. Dialogues are those that earlier
    sft and contrast steps learnt to answer (a row without a completion has nothing to say), of ``replay.views`` only
    where some are named; documents with an answer are none, since text replays what they are made of.
    """
    section = step.replay
    if section.rows < 1:
        return None
    length = section.sequence_length or length
    if not 0 <= section.chat <= 1:
        raise ConfigError(f"replay.chat is {section.chat}, but a share between 0 and 1 is needed.")
    pools = []
    if section.chat < 1:
        text = earlier_text(previous, corpus)
        if text is None:
            raise ConfigError("replay.rows asks for text of earlier steps, but no earlier step is causal.")
        shares = np.asarray([text.get(name, 0.0) for name in corpus.domains]) * (1 - section.chat)
        pools.append(Pool(name="text", packed=packed_text(corpus, tokenizer, length, "train"), shares=shares))
    if section.chat > 0:
        earlier = [
            step
            for step in previous
            if step.objective in _SPOKEN
            and is_dialogue(corpus, step.view)
            and (not section.views or step.view in section.views)
        ]
        if not earlier:
            raise ConfigError(
                "replay.chat asks for dialogues of earlier steps, but no earlier step is sft or contrast on dialogues"
                f"{' of ' + ', '.join(section.views) if section.views else ''}."
            )
        for (view, kinds), weight in _weights(earlier).items():
            packed = replayable_chats(corpus, tokenizer, length, view, kinds)
            if not len(packed):
                raise DataError(f"The view {view!r} has too few dialogues to fill one replay row of {length} tokens.")
            counts = np.bincount(packed.domain, minlength=len(corpus.domains)).astype(np.float64)
            name = f"{view}[{','.join(kinds)}]" if kinds else view
            pools.append(Pool(name=name, packed=packed, shares=counts / counts.sum() * weight * section.chat))
    return ReplayStream(tuple(pools), rows=section.rows, accumulate=step.accumulate, key=key)


def _weights(steps: Sequence[StepSection]) -> dict[tuple[str, tuple[str, ...]], float]:
    """The share of each (view, kinds) in replayed dialogues: every view the same, its kinds by the rows trained on.

    By rows alone, a short step's dialogues are hardly replayed and are lost: refusals were an eighth of the dialogues
    that the nano experiment replayed while its context grew, and one in seven was gone.
    """
    rows: dict[tuple[str, tuple[str, ...]], float] = {}
    for step in steps:
        rows[step.view, step.kinds] = rows.get((step.view, step.kinds), 0.0) + step.steps * step.rows
    views = {view for view, _ in rows}
    of_view = {name: sum(count for (view, _), count in rows.items() if view == name) for name in views}
    return {(view, kinds): count / of_view[view] / len(views) for (view, kinds), count in rows.items() if count > 0}
