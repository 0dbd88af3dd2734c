"""The one door to lm-eval: tasks in a folder, a model in memory, values per document out.

Never used: lm-eval's ``use_cache`` and ``cache_requests`` (keyed by neither model nor data), ``simple_evaluate``
(reseeds the process and spends half a second on an environment report) and its default task index (six seconds).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .quiet import quiet
from .undisturbed import undisturbed

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One document of one task: its hash, its row, what the model answered, and its metrics (NaN where broken)."""

    task: str
    hash: str
    doc: Mapping[str, Any]
    answers: tuple[Any, ...]
    metrics: Mapping[str, float]
    copies: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """What lm-eval returned: samples by task (each document once) and its own table of results."""

    samples: Mapping[str, tuple[Sample, ...]]
    results: Mapping[str, Mapping[str, Any]]
    versions: Mapping[str, Any]


def evaluate_folder(
    model: Any,
    tokenizer: Any,
    folder: Path,
    tasks: Sequence[str],
    *,
    batch_size: int = 64,
    seed: int = 0,
    chat: bool = False,
    max_length: int | None = None,
) -> Evaluation:
    """Run the named tasks of ``folder`` on a model in memory and leave model, tokenizer and random streams as found.

    ``chat`` renders prompts with the tokenizer's chat template. Sampling starts from ``seed``, so two calls with
    the same arguments give the same answers. ``max_length`` replaces the context length of the model's config.
    """
    import torch
    from lm_eval.evaluator import evaluate
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    with quiet(), undisturbed(model, tokenizer, seed):
        lm = HFLM(pretrained=model, tokenizer=tokenizer, batch_size=batch_size, max_length=max_length)
        loaded = TaskManager(include_path=[str(folder)], include_defaults=False).load(list(tasks))
        for task in loaded["tasks"].values():
            if task.get_config("num_fewshot") is None:
                task.set_config("num_fewshot", 0)
            task.set_fewshot_seed(seed)
        with torch.inference_mode():
            found = evaluate(lm, loaded, bootstrap_iters=100, log_samples=True, apply_chat_template=chat)
    return Evaluation(
        samples={task: _samples(task, found["samples"][task]) for task in loaded["tasks"]},
        results={task: dict(table) for task, table in found["results"].items()},
        versions=dict(found["versions"]),
    )


def finite(model: torch.nn.Module) -> bool:
    """Whether every weight is a finite number; argmax over NaN would otherwise score like an answer."""
    import torch

    return all(bool(torch.isfinite(parameter).all()) for parameter in model.parameters())


def _samples(task: str, logged: Iterable[Mapping[str, Any]]) -> tuple[Sample, ...]:
    """Merge filters and copies: one sample per document hash, metrics averaged over identical documents.

    Documents are told apart by hash: lm-eval's ``doc_id`` is wrong for unsorted selections.
    """
    merged: dict[str, dict[str, Any]] = {}
    for entry in logged:
        slot = merged.setdefault(entry["doc_hash"], {"doc": entry["doc"], "answers": [], "metrics": {}})
        slot["answers"].append(_plain(entry["filtered_resps"]))
        broken = _has_nan(entry["resps"])
        for name in entry["metrics"]:
            key = name if entry["filter"] == "none" else f"{name},{entry['filter']}"
            if isinstance(entry[name], int | float):
                slot["metrics"].setdefault(key, []).append(math.nan if broken else float(entry[name]))
    return tuple(
        Sample(
            task=task,
            hash=key[:16],
            doc=slot["doc"],
            answers=tuple(slot["answers"]),
            metrics={name: math.fsum(values) / len(values) for name, values in slot["metrics"].items()},
            copies=max((len(values) for values in slot["metrics"].values()), default=1),
        )
        for key, slot in merged.items()
    )


def _has_nan(value: Any) -> bool:
    if isinstance(value, float):
        return math.isnan(value)
    return isinstance(value, list | tuple) and any(_has_nan(entry) for entry in value)


def _plain(value: Any) -> Any:
    """Answers as JSON-able data: texts, or log-likelihoods without lm-eval's greedy flag."""
    if isinstance(value, list | tuple):
        if len(value) == 2 and isinstance(value[0], float) and isinstance(value[1], bool):
            return value[0]
        return [_plain(entry) for entry in value]
    return value
