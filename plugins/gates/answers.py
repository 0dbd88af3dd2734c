"""Posing chat prompts and collecting answers, for the gates that read what a model writes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ...evals.bridge import Sample
from ...evals.chat import question_of, stop_tokens
from ...evals.context import MeasureContext
from ...evals.packs import Kind, Pack, choose, write_pack
from .measuring import NotMeasured, Row, context_length, run_pack, token_count


def answer(
    ctx: MeasureContext,
    kind: Kind,
    rows: Sequence[Row],
    *,
    truth: str,
    documents: int,
    answer_tokens: int,
    sampled: bool,
) -> tuple[tuple[Sample, ...], dict[str, Any]]:
    """Answers of the model to the prompts of ``rows``, scored as tasks of ``kind`` are, and what to note of it.

    ``truth`` names the column that the score looks at; rows without one, and conversations of several turns, are
    left out and counted. Greedy unless ``sampled``, which draws at temperature 1 from the whole vocabulary with
    the context's seed.
    """
    if ctx.tokenizer.chat_template is None:
        raise NotMeasured("the tokenizer has no chat template")
    posed: list[Row] = []
    left_out = 0
    for row in rows:
        question = question_of(row["prompt"])
        if not row.get(truth):
            continue
        if question is None:
            left_out += 1
            continue
        posed.append(
            {
                "system": question[0],
                "question": question[1],
                truth: row[truth],
                "domain": str(row.get("domain", "")),
                "kind": str(row.get("kind", "")),
            }
        )
    if not posed:
        raise NotMeasured(f"no row has both a one-turn prompt and '{truth}' to score its answer by")
    pack = write_pack(
        ctx.folder, kind, choose(posed, ctx.documents or documents), _generation(ctx, answer_tokens, sampled)
    )
    notes: dict[str, Any] = {"pack": pack.task, "data": pack.digest}
    if left_out:
        notes["left_out"] = left_out
    return run_pack(ctx, pack, chat=True, max_length=_room(ctx, pack, posed, answer_tokens)), notes


def _generation(ctx: MeasureContext, answer_tokens: int, sampled: bool) -> dict[str, Any]:
    shape = {"until": [], "max_gen_toks": answer_tokens, "eos_token_id": stop_tokens(ctx.tokenizer, ctx.model)}
    if not sampled:
        return shape | {"do_sample": False}
    return shape | {"do_sample": True, "temperature": 1.0, "top_k": 0, "top_p": 1.0}


def _room(ctx: MeasureContext, pack: Pack, rows: Sequence[Row], answer_tokens: int) -> int:
    """Context length that leaves every prompt whole; lm-eval would cut its beginning off without a word."""
    longest = max(
        token_count(
            ctx,
            ctx.tokenizer.apply_chat_template(
                [{"role": "system", "content": row["system"]}] * bool(row["system"])
                + [{"role": "user", "content": row["question"]}],
                tokenize=False,
                add_generation_prompt=True,
            ),
        )
        for row in rows
    )
    return max(context_length(ctx), longest + answer_tokens + 1)
