"""What the gates share: rows of a view, running a pack, and saying why something could not be measured."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from ...evals.bridge import Sample, evaluate_folder, finite
from ...evals.context import MeasureContext
from ...evals.measurement import Measurement, missing
from ...evals.packs import Pack
from ...registry.errors import DataError

Row = dict[str, Any]


class NotMeasured(DataError):
    """Why a gate has nothing to report."""


def or_missing(metrics: Iterable[str], measure: Callable[[], Mapping[str, Measurement]]) -> Mapping[str, Measurement]:
    """What ``measure`` returns, or, where data is not there or not what it should be, each of ``metrics`` as missing
    with the reason; no criterion passes on that."""
    try:
        return measure()
    except DataError as reason:
        return {name: missing(name, str(reason)) for name in metrics}


def view_rows(ctx: MeasureContext, view: str, split: str, kinds: Sequence[str] = ()) -> list[Row]:
    """The rows of a data view, of the named kinds only; ``NotMeasured`` where there are none."""
    rows = [dict(row) for row in ctx.view(view, split)]
    if not rows:
        raise NotMeasured(f"the data has no {split} rows of view '{view}'")
    if kinds:
        rows = [row for row in rows if row.get("kind") in kinds]
        if not rows:
            raise NotMeasured(f"the {split} rows of view '{view}' have none of the kinds {', '.join(kinds)}")
    return rows


def run_pack(
    ctx: MeasureContext, pack: Pack, *, chat: bool = False, max_length: int | None = None
) -> tuple[Sample, ...]:
    """Run one pack on the context's model and keep the answers beside it as evidence."""
    check_finite(ctx)
    found = evaluate_folder(
        ctx.model,
        ctx.tokenizer,
        pack.folder,
        [pack.task],
        batch_size=ctx.batch_size,
        seed=ctx.seed,
        chat=chat,
        max_length=max_length or context_length(ctx),
    )
    samples = found.samples[pack.task]
    with (pack.folder / "answers.jsonl").open("w", encoding="utf-8") as file:
        for sample in samples:
            entry = {"hash": sample.hash, "answers": sample.answers, "metrics": dict(sample.metrics)}
            file.write(json.dumps(entry, ensure_ascii=False) + "\n")
    return samples


def check_finite(ctx: MeasureContext) -> None:
    """``NotMeasured`` for a model whose weights hold NaN or infinity."""
    if not finite(ctx.model):
        raise NotMeasured("the model has weights that are not finite numbers")


def context_length(ctx: MeasureContext) -> int:
    """The length that texts are cut to: the trained one, else the one of the model's config."""
    return ctx.length or int(getattr(ctx.model.config, "max_position_embeddings", 2048))


def token_count(ctx: MeasureContext, text: str) -> int:
    """How many tokens a text has."""
    return len(ctx.tokenizer(text)["input_ids"])


def fitting(
    ctx: MeasureContext, rows: Sequence[Row], parts: Callable[[Row], tuple[str, Sequence[str]]]
) -> tuple[list[Row], dict[str, Any]]:
    """Rows whose continuations fit into the context length, and what was done to the others.

    A context that is too long loses its beginning (counted as ``truncated``); a row with a continuation longer
    than the whole context length cannot be scored and is left out (``left_out``).
    """
    limit = context_length(ctx)
    kept, cut = [], 0
    for row in rows:
        context, continuations = parts(row)
        longest = max(token_count(ctx, text) for text in continuations)
        if longest <= limit:
            kept.append(row)
            cut += token_count(ctx, context) + longest > limit + 1
    if not kept:
        raise NotMeasured(f"no row fits into the context length of {limit} tokens")
    return kept, {key: n for key, n in (("truncated", cut), ("left_out", len(rows) - len(kept))) if n}
