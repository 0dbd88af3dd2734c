"""The data of one optimisation step of a phase, in final order."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from ...registry.errors import ConfigError, DataError
from ..config.contrast import contrast_options
from ..config.schema import StepSection
from .chat import Chats, pair_lengths
from .contrast import contrast_rows, order_by_kind
from .corpus import Corpus
from .earlier import build_replay, earlier_text
from .hashing import digest
from .mixture import deal
from .order import Order, order_rows
from .packing import Packed
from .prepared import encoded_answers, packed_text, text_domains, tokenizer_key
from .replay import ReplayStream
from .source import Split
from .tables import dataset_of

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedTokenizerFast

#: Held-out rows that a step is given at most, the domains in turn.
HELDOUT_ROWS = 2_048


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class StepDataRequest:
    """What the data of a step depends on. ``previous`` are all earlier steps of the curriculum, for replay;
    ``first_step`` is where an extension of the step goes on."""

    corpus: Corpus
    tokenizer: PreTrainedTokenizerFast
    step: StepSection
    length: int
    previous: tuple[StepSection, ...] = ()
    seed: int = 0
    first_step: int = 0


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class StepData:
    """Exactly steps*rows rows in order, held-out rows, replay beside the loss if asked for, and the accounts:
    tokens in ``train``, drawn shares (domains, or kinds in a contrast step, and ``replay``), passes over each, and what
    was left out."""

    train: Dataset
    heldout: Dataset
    replay: ReplayStream | None
    tokens: int
    shares: Mapping[str, float]
    epochs: Mapping[str, float]
    notes: tuple[str, ...] = ()
    report: Mapping[str, Any] = field(default_factory=dict)


def build_step_data(request: StepDataRequest) -> StepData:
    """Draw, tokenise and order the rows of a step; the same request gives the same rows in every process.

    causal: input_ids, position_ids, labels, domain, one length, one domain per row. sft: input_ids,
    assistant_masks, domain. dpo: prompt, chosen, rejected, domain. contrast: see ``ContrastRows``. ``domain`` is an
    index into corpus.domains.
    """
    step = request.step
    if step.steps < 1 or step.rows < 1 or request.length < 2:
        raise ConfigError("A step needs steps >= 1, rows >= 1 and a sequence_length >= 2.")
    build = {"causal": _causal, "contrast": _contrast, "distill": _causal, "dpo": _dpo, "sft": _sft}[step.objective]
    return build(request)


def _key(request: StepDataRequest) -> tuple[Any, ...]:
    step = request.step
    key = (request.corpus.fingerprint(), request.seed, step.objective, step.view)
    return (*key, list(step.kinds)) if step.kinds else key


def _members(names: list[str]) -> dict[str, np.ndarray[Any, np.dtype[np.int64]]]:
    column = np.asarray(names, dtype=object)
    return {name: np.flatnonzero(column == name) for name in sorted(set(names))}


def _order(
    request: StepDataRequest,
    members: Mapping[str, np.ndarray[Any, np.dtype[np.int64]]],
    natural: Mapping[str, float] | None,
    replay_mixture: Mapping[str, float] | None = None,
) -> Order:
    step = request.step
    dealt = deal(
        step.batches,
        [name for name in request.corpus.domains if name in members],
        steps=request.first_step + step.steps,
        rows=step.rows,
        natural=natural,
        replay_share=step.replay.share,
        replay_mixture=replay_mixture,
    )
    return order_rows(dealt, members, _key(request), request.first_step)


def _in_turn(members: Mapping[str, np.ndarray[Any, np.dtype[np.int64]]]) -> list[int]:
    """Rows of all domains in turn, so that any beginning of the list is fair to all; the short ones end first."""
    ranked = sorted((place, name, int(row)) for name, rows in members.items() for place, row in enumerate(rows))
    return [row for _, _, row in ranked][:HELDOUT_ROWS]


def _causal(request: StepDataRequest) -> StepData:
    corpus, step = request.corpus, request.step
    if step.view != "text":
        raise ConfigError(f"A {step.objective} step reads the view 'text', not {step.view!r}; set view: text.")
    if step.kinds:
        raise ConfigError(
            f"A {step.objective} step reads all text, which has no kinds; remove kinds, or weigh batches.mixture."
        )
    packed = packed_text(corpus, request.tokenizer, request.length, "train")
    notes: tuple[str, ...] = ()
    mixture = None
    if step.replay.share > 0:
        mixture = earlier_text(request.previous, corpus)
        if mixture is None:
            notes = (f"replay.share is {step.replay.share}, but no earlier step has text to replay",)
    numbers = packed.members(len(corpus.domains))
    members = {name: numbers[corpus.domains.index(name)] for name in text_domains(corpus)}
    order = _order(request, members, None, mixture)
    base = _rows_of(packed, digest(*_key(request), request.length, "train"))
    held = packed_text(corpus, request.tokenizer, request.length, "heldout")
    held_members = dict(zip(corpus.domains, held.members(len(corpus.domains)), strict=True))
    heldout = _rows_of(held, digest(*_key(request), request.length, "heldout")).select(_in_turn(held_members))
    if not len(heldout):
        raise DataError(
            f"The held-out text fills no row of {request.length} tokens; raise data.held_out or lower sequence_length."
        )
    return StepData(
        train=base.select(order.rows),
        heldout=heldout,
        replay=_replay(request),
        tokens=len(order.rows) * request.length,
        shares=order.shares,
        epochs=order.epochs,
        notes=notes,
        report={"rows": len(packed), "documents": packed.documents, "leftover_tokens": packed.leftover},
    )


def _rows_of(packed: Packed, fingerprint: str) -> Dataset:
    import pyarrow as pa

    def column(grid: np.ndarray[Any, np.dtype[np.int32]]) -> pa.Array:
        offsets = np.arange(0, grid.size + 1, grid.shape[1], dtype=np.int64)
        return pa.LargeListArray.from_arrays(offsets, np.ascontiguousarray(grid).reshape(-1))

    ids = column(packed.ids)
    labels = ids if packed.labels is packed.ids else column(packed.labels)
    columns = {"input_ids": ids, "position_ids": column(packed.positions), "labels": labels}
    return dataset_of({**columns, "domain": packed.domain}, fingerprint)


def _sft(request: StepDataRequest) -> StepData:
    corpus, view, kinds = request.corpus, request.step.view, request.step.kinds
    chats = encoded_answers(corpus, request.tokenizer, request.length, view, "train", kinds)
    held = encoded_answers(corpus, request.tokenizer, request.length, view, "heldout", kinds)
    members = _members(chats.domain)
    order = _order(request, members, {name: len(rows) for name, rows in members.items()})
    lengths = np.asarray([len(ids) for ids in chats.ids])
    base = _chat_rows(corpus, chats, digest(*_key(request), request.length, "train"))
    heldout = _chat_rows(corpus, held, digest(*_key(request), request.length, "heldout"))
    return StepData(
        train=base.select(order.rows),
        heldout=heldout.select(_in_turn(_members(held.domain))),
        replay=_replay(request),
        tokens=int(lengths[order.rows].sum()),
        shares=order.shares,
        epochs=order.epochs,
        notes=(*_too_long(chats.too_long, len(chats), request.length), *_unanswered(chats)),
        report={"rows": len(chats), "too_long": chats.too_long, "unanswered": chats.unanswered},
    )


def _chat_rows(corpus: Corpus, chats: Chats, fingerprint: str) -> Dataset:
    number = {name: place for place, name in enumerate(corpus.domains)}
    columns = {
        "input_ids": chats.ids,
        "assistant_masks": chats.masks,
        "domain": [number[name] for name in chats.domain],
    }
    return dataset_of(columns, fingerprint)


def _dpo(request: StepDataRequest) -> StepData:
    corpus, view, kinds = request.corpus, request.step.view, request.step.kinds
    splits = {}
    both: tuple[Split, Split] = ("train", "heldout")
    for split in both:
        rows = corpus.rows(view, split, kinds)
        lengths = corpus.once(
            ("pairs", tokenizer_key(request.tokenizer), view, split, kinds),
            partial(pair_lengths, request.tokenizer, rows),
        )
        keep = [place for place, length in enumerate(lengths) if length <= request.length]
        if not keep:
            raise DataError(
                f"All {len(rows)} {split} preference pairs are longer than {request.length} tokens; "
                "raise sequence_length."
            )
        splits[split] = (_pairs(corpus, rows.select(keep)), [lengths[place] for place in keep], len(rows) - len(keep))
    train, lengths, dropped = splits["train"]
    members = _members([corpus.domains[number] for number in train["domain"][:]])
    order = _order(request, members, {name: len(rows) for name, rows in members.items()})
    heldout = splits["heldout"][0]
    held_members = _members([corpus.domains[number] for number in heldout["domain"][:]])
    return StepData(
        train=train.select(order.rows),
        heldout=heldout.select(_in_turn(held_members)),
        replay=_replay(request),
        tokens=2 * int(np.asarray(lengths)[order.rows].sum()),
        shares=order.shares,
        epochs=order.epochs,
        notes=_too_long(dropped, len(train), request.length),
        report={"rows": len(train), "too_long": dropped},
    )


def _contrast(request: StepDataRequest) -> StepData:
    corpus, step = request.corpus, request.step
    found = contrast_rows(corpus, request.tokenizer, request.length, step.view, "train", step.kinds)
    held = contrast_rows(corpus, request.tokenizer, request.length, step.view, "heldout", step.kinds)
    order = order_by_kind(
        found.members,
        contrast_options(step.options, "the step").shares,
        steps=step.steps,
        rows=step.rows,
        first=request.first_step,
        key=_key(request),
    )
    answers = zip(found.rows["input_ids"][:], found.rows["rejected_ids"][:], strict=True)
    lengths = np.asarray([len(said) + len(unsaid) for said, unsaid in answers])
    notes = _too_long(found.too_long, found.rows.num_rows, request.length)
    if found.cut:
        notes += (f"{found.cut} rejected answers are longer than {request.length} tokens and were left out",)
    if found.unanswered:
        notes += (f"{found.unanswered} training rows have no answer to learn from and were left out",)
    return StepData(
        train=found.rows.select(order.rows),
        heldout=held.rows.select(_in_turn(held.members)),
        replay=_replay(request),
        tokens=int(lengths[order.rows].sum()),
        shares=order.shares,
        epochs=order.epochs,
        notes=notes,
        report={"rows": found.rows.num_rows, "too_long": found.too_long, "unanswered": found.unanswered},
    )


def _pairs(corpus: Corpus, rows: Dataset) -> Dataset:
    number = {name: place for place, name in enumerate(corpus.domains)}
    columns: dict[str, Any] = {name: rows[name][:] for name in ("prompt", "chosen", "rejected")}
    columns["domain"] = [number[name] for name in rows["domain"][:]]
    return dataset_of(columns, digest(corpus.fingerprint(), "pairs", len(rows)))


def _too_long(dropped: int, kept: int, length: int) -> tuple[str, ...]:
    if not dropped:
        return ()
    return (f"{dropped} of {dropped + kept} training rows are longer than {length} tokens and were left out",)


def _unanswered(chats: Chats) -> tuple[str, ...]:
    if not chats.unanswered:
        return ()
    return (f"{chats.unanswered} training rows have no answer to learn from and were left out",)


def _replay(request: StepDataRequest) -> ReplayStream | None:
    return build_replay(
        request.step, request.previous, request.corpus, request.tokenizer, request.length, _key(request)
    )
