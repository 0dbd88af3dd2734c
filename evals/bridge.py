"""The one door to lm-eval: tasks in a folder, a model in memory, values per document out.

Never used: lm-eval's ``use_cache`` and ``cache_requests`` (keyed by neither model nor data), ``simple_evaluate``
(reseeds the process and spends half a second on an environment report) and its default task index (six seconds).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
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
    """What lm-eval returned: samples by task (each document once) and its own table of results; ``longer`` requests
    had more tokens than the model's context length."""

    samples: Mapping[str, tuple[Sample, ...]]
    results: Mapping[str, Mapping[str, Any]]
    versions: Mapping[str, Any]
    longer: int = 0


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
    with undisturbed(model, tokenizer):  # building tasks draws numbers too
        return evaluate_tasks(
            model,
            tokenizer,
            load_tasks(folder, tasks),
            batch_size=batch_size,
            seed=seed,
            chat=chat,
            max_length=max_length,
        )


def load_tasks(folder: Path, tasks: Sequence[str]) -> Any:
    """The named tasks of ``folder`` with their data, as lm-eval holds them; it looks nowhere else."""
    from lm_eval.tasks import TaskManager

    with quiet():
        return TaskManager(include_path=[str(folder)], include_defaults=False).load(list(tasks))


def evaluate_tasks(
    model: Any,
    tokenizer: Any,
    loaded: Any,
    *,
    batch_size: int = 64,
    seed: int = 0,
    chat: bool = False,
    max_length: int | None = None,
    whole: bool = False,
    fewshot: int | None = None,
    select: Callable[[str, Sequence[Mapping[str, Any]]], Sequence[int]] | None = None,
    allow_code: bool = False,
    errors: bool = True,
) -> Evaluation:
    """Run loaded tasks as ``evaluate_folder`` does.

    ``whole`` lets texts be longer than ``max_length`` where the model's positions allow it. ``fewshot`` replaces the
    tasks' own number of examples. ``select`` gives the places of the documents to ask, by task and its documents.
    ``allow_code`` lets tasks run that lm-eval holds for unsafe; ``errors`` has lm-eval compute its standard errors.
    """
    import torch
    from lm_eval.evaluator import evaluate
    from lm_eval.models.huggingface import HFLM

    from .templates import compiled_once

    with quiet(), undisturbed(model, tokenizer, seed), compiled_once():
        kind: Any = HFLM
        if whole:
            from .whole import Whole

            kind = Whole
        lm = kind(pretrained=model, tokenizer=tokenizer, batch_size=batch_size, max_length=max_length)
        for task in loaded["tasks"].values():
            if fewshot is not None:
                task.set_config("num_fewshot", fewshot)
            if task.get_config("num_fewshot") is None:
                task.set_config("num_fewshot", 0)
            task.set_fewshot_seed(seed)
        # Sorted: lm-eval would give the documents of an unsorted selection each other's numbers.
        chosen = (
            None if select is None else {n: sorted(select(n, task.eval_docs)) for n, task in loaded["tasks"].items()}
        )
        with torch.inference_mode():
            found = evaluate(
                lm,
                loaded,
                samples=chosen,
                bootstrap_iters=100 if errors else 0,
                log_samples=True,
                apply_chat_template=chat,
                confirm_run_unsafe_code=allow_code,
            )
    return Evaluation(
        samples={task: _samples(task, found["samples"][task]) for task in loaded["tasks"]},
        results={task: dict(table) for task, table in found["results"].items()},
        versions=dict(found["versions"]),
        longer=int(getattr(lm, "longer", 0)),
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
            value = entry[name]
            if isinstance(value, list) and value and all(isinstance(part, bool) for part in value):
                value = math.fsum(value) / len(value)  # several verdicts on one answer
            if isinstance(value, int | float):
                slot["metrics"].setdefault(key, []).append(math.nan if broken else float(value))
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
