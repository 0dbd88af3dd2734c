"""Proofs of what is learnt from: supervised tokens, the order of rows, shares of domains and of replay."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace

from ..config.conversions import CAUSAL
from ..config.schema import StepSection
from .proof import Proofs, proved
from .rehearsal import Place, Rehearsal
from .witness import Observed

#: Optimiser steps over which shares are counted, and how far they may be off: a batch type more or less.
_STEPS = 64
_OFF = 0.03

_ANSWERS = ("contrast", "dpo", "sft")


def supervision(rehearsal: Rehearsal) -> Proofs:
    """Every row has supervised tokens; where answers are learnt, no row has its prompt supervised as well."""
    for place, observed in rehearsal.trained():
        if not observed.supervised:
            continue
        none = sum(1 for _, supervised in observed.supervised if not supervised)
        whole = sum(1 for valid, supervised in observed.supervised if supervised >= valid)
        rows = len(observed.supervised)
        wrong = None
        if none:
            wrong = f"{none} of {rows} rows have no supervised token, so nothing is learnt from them"
        elif whole and place.section.objective in _ANSWERS:
            wrong = f"{whole} of {rows} rows have every token supervised, the prompt too; the mask of answers is lost"
        share = sum(s for _, s in observed.supervised) / max(1, sum(v for v, _ in observed.supervised))
        yield proved("supervised tokens", place.label, wrong, f"{share:.0%} of the tokens in {rows} rows")


def row_order(rehearsal: Rehearsal) -> Proofs:
    """The trainer reads the rows of the data in their order, each once."""
    for place, observed in rehearsal.trained():
        wanted = _wanted(observed)
        if wanted is None or not observed.rows:
            continue
        read = [tokens for _, tokens in observed.rows]
        if place.section.objective == "contrast":  # both answers of a batch, what should be said first
            read = [tokens for tokens in read if tokens in set(wanted)]
        wrong = None
        if read[: len(wanted)] != wanted[: len(read)]:
            first = next(n for n, pair in enumerate(zip(read, wanted, strict=False)) if pair[0] != pair[1])
            wrong = f"row {first} of the data is not what the trainer read there: it keeps another order"
        yield proved("order of rows", place.label, wrong, f"{len(read)} rows as the data has them")


def _wanted(observed: Observed) -> list[tuple[int, ...]] | None:
    """The rows of the step's data; None where the trainer makes its tokens itself."""
    train = observed.job.train
    if "input_ids" not in train.column_names:
        return None
    return [tuple(int(token) for token in ids) for ids in train["input_ids"][:]]


def shares(rehearsal: Rehearsal, place: Place) -> Proofs:
    """Domains are drawn as the mixture says, and earlier data is replayed as often as it should be."""
    from ..data.step_data import StepDataRequest, build_step_data
    from ..run.seeds import derive

    section = place.section
    if section.objective in {*CAUSAL, "contrast", "dpo", "sft"}:
        shop = rehearsal.shop(place.stage)
        data = build_step_data(
            StepDataRequest(
                corpus=shop.corpus,
                tokenizer=shop.tokenizer,
                step=replace(section, steps=_STEPS),
                length=section.sequence_length or shop.length,
                previous=place.earlier,
                seed=derive(f"{place.stage.chain}/0", place.name, "data"),
            )
        )
        numbers = Counter(int(number) for number in data.train["domain"][:])
        drawn = {shop.corpus.domains[n]: count / len(data.train) for n, count in numbers.items()}
        expected = _expected(rehearsal, place)
        if expected is not None:
            name = max(expected, key=lambda one: abs(expected[one] - drawn.get(one, 0.0)))
            off = abs(expected[name] - drawn.get(name, 0.0))
            wrong = None
            if off > _OFF:
                wrong = f"'{name}' is {drawn.get(name, 0.0):.1%} of the rows, but should be {expected[name]:.1%}"
            yield proved("shares of domains", place.label, wrong, f"within {off:.1%} of it over {_STEPS} steps")
        if section.replay.share and place.earlier:
            replayed = data.shares.get("replay", 0.0)
            wrong = None
            if abs(replayed - section.replay.share) > _OFF:
                wrong = f"{replayed:.1%} of the rows are replayed, but replay.share is {section.replay.share:.1%}"
            yield proved("share of replay", place.label, wrong, f"{replayed:.1%} of the rows are of earlier phases")
        if section.replay.rows and place.earlier:
            count = 0
            if data.replay is not None:
                batches = [data.replay.batch(0, n, 0, 1) for n in range(section.accumulate)]
                count = sum(len(batch["input_ids"]) for batch in batches)
            wrong = None
            if count != section.replay.rows:
                wrong = f"{count} rows are replayed beside every step, but replay.rows is {section.replay.rows}"
            yield proved("rows of replay", place.label, wrong, f"{count} rows beside every step")


def _expected(rehearsal: Rehearsal, place: Place) -> Mapping[str, float] | None:
    """The share that every domain should have; None where nothing was said and the data decides."""
    from ..data.earlier import earlier_text
    from ..data.mixture import marginal
    from ..data.prepared import text_domains

    section: StepSection = place.section
    if section.objective not in CAUSAL:
        return None  # views of dialogues keep the proportions of their sources
    corpus = rehearsal.plan.corpus
    domains = text_domains(corpus)
    own = marginal(section.batches, domains)
    if section.batches.mixture and section.batches.kind == "uniform":
        total = sum(section.batches.mixture.values())
        own = {name: share / total for name, share in section.batches.mixture.items()}
    replayed = earlier_text(place.earlier, corpus) if section.replay.share else None
    if replayed is None:
        return own
    share, whole = section.replay.share, sum(replayed.values())
    return {
        name: (1 - share) * own.get(name, 0.0) + share * replayed.get(name, 0.0) / whole for name in {*own, *replayed}
    }
