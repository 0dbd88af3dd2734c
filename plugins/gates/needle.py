"""Retrieval from long documents: does the model find what stands somewhere in its context?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ...evals.context import MeasureContext
from ...evals.measurement import Measurement, missing
from ...evals.packs import choose_evenly, write_pack
from ...evals.summary import summarise
from .measuring import NotMeasured, Row, context_length, or_missing, run_pack, token_count, view_rows

DOCUMENTS_PER_KIND = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class NeedleConfig:
    """Which documents of ``view`` and ``split``; ``kinds`` (lengths in words) keeps only those."""

    view: str = "needle"
    split: str = "heldout"
    kinds: tuple[str, ...] = ()


class NeedleGate:
    """Share of documents whose hidden pass key is the greedy continuation, word for word (pass-key retrieval,
    Mohtashami and Jaggi 2023, 2305.16300).

    Metrics: ``acc``, ``acc/<kind>`` (length in words) and, where rows say how deep the key lies, ``acc/depth-<d>``
    (0: at the beginning). 200 documents of each kind unless the criterion says how many in all. A document that with
    its answer has more tokens than the model has positions is not cut, which could cut the key away: every metric
    that it belongs to is then not measured.
    """

    def __init__(self, config: NeedleConfig | None = None) -> None:
        self.config = config or NeedleConfig()

    def measure(self, ctx: MeasureContext) -> Mapping[str, Measurement]:
        return or_missing(("acc",), lambda: self._measure(ctx))

    def _measure(self, ctx: MeasureContext) -> Mapping[str, Measurement]:
        rows = view_rows(ctx, self.config.view, self.config.split, self.config.kinds)
        kinds = {str(row["kind"]) for row in rows}
        chosen = choose_evenly(rows, ctx.documents or DOCUMENTS_PER_KIND * len(kinds), lambda row: str(row["kind"]))
        positions = int(getattr(ctx.model.config, "max_position_embeddings", 0)) or context_length(ctx)
        answer_tokens = max(token_count(ctx, f" {row['answer']}") for row in chosen) + 1
        lengths = [token_count(ctx, row["text"]) + answer_tokens for row in chosen]
        fit = [_row(row) for row, length in zip(chosen, lengths, strict=True) if length <= positions]
        over = [_row(row) for row, length in zip(chosen, lengths, strict=True) if length > positions]
        reason = f"{len(over)} of {len(chosen)} documents have more tokens than the model's {positions} positions"
        if not fit:
            raise NotMeasured(f"{reason}; stretch the context first, or choose kinds")
        generation = {"until": [], "max_gen_toks": answer_tokens, "do_sample": False, "eos_token_id": _ends(ctx)}
        pack = write_pack(ctx.folder, "needle", fit, generation)
        samples = run_pack(ctx, pack, max_length=max(lengths))
        deep = [sample for sample in samples if sample.doc["depth"]]
        found = {
            **summarise(deep, {"acc": "proportion"}, by=lambda sample: f"depth-{sample.doc['depth']}"),
            **summarise(
                samples,
                {"acc": "proportion"},
                by=lambda sample: str(sample.doc["kind"]),
                evidence={"pack": pack.task, "data": pack.digest, "positions": positions},
            ),
        }
        return found | {name: missing(name, reason) for row in over for name in _metrics(row)}


def _row(row: Row) -> Row:
    depth = row.get("depth")
    return {
        **{name: str(row.get(name, "")) for name in ("text", "answer", "domain", "kind")},
        "depth": "" if depth is None else f"{float(depth):g}",
    }


def _metrics(row: Row) -> list[str]:
    """The metrics that a document belongs to."""
    return ["acc", f"acc/{row['kind']}", *([f"acc/depth-{row['depth']}"] if row["depth"] else [])]


def _ends(ctx: MeasureContext) -> list[int]:
    own = getattr(ctx.model.generation_config, "eos_token_id", None)
    return sorted(
        {token for token in (*(own if isinstance(own, list) else [own]), ctx.tokenizer.eos_token_id) if token}
    )
