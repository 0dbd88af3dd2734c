"""Accuracy on multiple-choice questions without each expert, by lm-eval, on the same questions as the full model."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ...evals.bridge import evaluate_folder
from ...evals.context import MeasureContext
from ...evals.intervals import Paired, paired_difference
from ...evals.packs import Pack, choose_evenly, write_pack
from .measuring import context_length, fitting, view_rows


def choice_rows(
    ctx: MeasureContext, view: str, questions: int, layers: Sequence[int], experts: Iterable[int]
) -> list[dict[str, Any]]:
    """One row per expert, masked in all ``layers``: the change of accuracy over all questions, the most affected
    domain and its change, with the bounds of ``paired_difference``, one-sided at 0.95 each."""
    rows = choose_evenly(view_rows(ctx, view, "heldout"), questions, lambda row: str(row["domain"]))
    chosen, _ = fitting(ctx, rows, lambda row: (row["question"], [" " + text for text in row["choices"]]))
    pack = write_pack(ctx.folder, "choice", chosen)
    full = _right(ctx, pack)
    found = []
    for expert in experts:
        from ...core.model.ablating import without_experts

        with without_experts(ctx.model, {layer: [expert] for layer in layers}):
            without = _right(ctx, pack)
        by_domain = {name: _change(without, full, name) for name in sorted({domain for domain, _ in full})}
        most = min(by_domain, key=lambda name: by_domain[name].value)
        found.append(
            {
                "expert": expert,
                "questions": len(full),
                "mean": _as_dict(_change(without, full, None)),
                "most": most,
                "drop": round(by_domain[most].value, 6),
                "domains": {name: _as_dict(change) for name, change in by_domain.items()},
            }
        )
    return found


def _right(ctx: MeasureContext, pack: Pack) -> dict[tuple[str, str], float]:
    """Whether each question was answered rightly, by domain and document."""
    found = evaluate_folder(
        ctx.model,
        ctx.tokenizer,
        pack.folder,
        [pack.task],
        batch_size=ctx.batch_size,
        seed=ctx.seed,
        max_length=context_length(ctx),
    )
    return {(str(sample.doc["domain"]), sample.hash): sample.metrics["acc"] for sample in found.samples[pack.task]}


def _change(
    without: Mapping[tuple[str, str], float], full: Mapping[tuple[str, str], float], domain: str | None
) -> Paired:
    keys = sorted(key for key in full if domain in (None, key[0]))
    return paired_difference([without[key] for key in keys], [full[key] for key in keys])


def _as_dict(change: Paired) -> dict[str, float]:
    return {"value": round(change.value, 6), "low": round(change.low, 6), "high": round(change.high, 6)}
