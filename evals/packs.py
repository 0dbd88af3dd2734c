"""Task packs: data rows written as lm-eval tasks (a JSONL file and a YAML file) into an evidence folder."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import yaml

from ..registry.errors import DataError

Kind = Literal["choice", "preference", "format", "judge", "needle", "perplexity", "position", "refusal"]

_PROCESSING = __name__.rpartition(".")[0] + ".processing"


@dataclass(frozen=True, slots=True)
class Function:
    """A ``!function`` tag: an importable function that lm-eval resolves when it loads the task."""

    path: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Pack:
    """A written task: where it lies, its lm-eval name, its number of rows and the digest of its data."""

    folder: Path
    task: str
    rows: int
    digest: str


class _Dumper(yaml.SafeDumper):
    pass


_Dumper.add_representer(Function, lambda dumper, data: dumper.represent_scalar("!function", data.path))

# Made once: whole files are drawn from, and json.dumps would make an encoder for every row.
_encode = json.JSONEncoder(sort_keys=True, ensure_ascii=False, default=str).encode

# Fields are named, not templated: a template that renders to digits becomes an integer and changes the task's shape.
_TASKS: dict[Kind, dict[str, Any]] = {
    "choice": {
        "output_type": "multiple_choice",
        "doc_to_text": "question",
        "doc_to_choice": "choices",
        "doc_to_target": "answer",
        "process_results": Function(f"{_PROCESSING}.choice"),
        "metrics": {"acc": True, "acc_norm": True, "brier": False, "probability": True},
    },
    "preference": {
        "output_type": "multiple_choice",
        "doc_to_text": "context",
        "doc_to_choice": "choices",
        "doc_to_target": 0,
        "target_delimiter": "",
        "process_results": Function(f"{_PROCESSING}.preference"),
        "metrics": {"margin": True, "acc": True},
    },
    "format": {
        "output_type": "generate_until",
        "description": "system",
        "doc_to_text": "question",
        "doc_to_target": "check",
        "process_results": Function(f"{_PROCESSING}.checked_format"),
        "metrics": {"acc": True},
    },
    "judge": {
        "output_type": "generate_until",
        "description": "system",
        "doc_to_text": "question",
        "doc_to_target": "truth",
        "process_results": Function(f"{_PROCESSING}.judged"),
        "metrics": {"score": True},
    },
    "needle": {
        "output_type": "generate_until",
        "doc_to_text": "text",
        "doc_to_target": "answer",
        "process_results": Function(f"{_PROCESSING}.found"),
        "metrics": {"acc": True},
    },
    "perplexity": {
        "output_type": "loglikelihood_rolling",
        "doc_to_text": "",
        "doc_to_target": "text",
        "process_results": Function(f"{_PROCESSING}.perplexity"),
        "metrics": {"nll": False, "bits_per_byte": False},
    },
    "position": {
        "output_type": "loglikelihood",
        "doc_to_text": "context",
        "doc_to_target": "target",
        "target_delimiter": "",
        "process_results": Function(f"{_PROCESSING}.position"),
        "metrics": {"nll": False},
    },
    "refusal": {
        "output_type": "generate_until",
        "description": "system",
        "doc_to_text": "question",
        "doc_to_target": "truth",
        "process_results": Function(f"{_PROCESSING}.refused_or_answered"),
        "metrics": {"refused": False, "answered": True},
    },
}


def write_pack(
    folder: Path, kind: Kind, rows: Sequence[Mapping[str, Any]], generation: Mapping[str, Any] | None = None
) -> Pack:
    """Write ``rows`` as one task and say where; the same rows always go to the same place.

    Paths in the task file are absolute, since lm-eval resolves relative ones against the working directory.
    ``DataError`` where there are no rows, or an answer lies outside its choices (lm-eval would only warn).
    """
    if not rows:
        raise DataError(f"there are no rows to write a '{kind}' task from: check the data of this experiment.")
    if kind == "choice":
        for row in rows:
            if not 0 <= int(row["answer"]) < len(row["choices"]):
                raise DataError(
                    f"question '{str(row['question'])[:60]}' has answer {row['answer']} but "
                    f"{len(row['choices'])} choices: mend the source."
                )
    lines = [json.dumps(row, ensure_ascii=False, sort_keys=True) for row in rows]
    digest = hashlib.sha256("\n".join([*lines, json.dumps(generation, sort_keys=True)]).encode()).hexdigest()
    task = f"{kind}-{digest[:12]}"
    home = (folder / task).resolve()
    home.mkdir(parents=True, exist_ok=True)
    data = home / "rows.jsonl"
    data.write_text("\n".join(lines) + "\n", encoding="utf-8")
    config = {key: value for key, value in _TASKS[kind].items() if key != "metrics"}
    config |= {
        "task": task,
        "custom_dataset": Function(f"{_PROCESSING}.rows"),
        "dataset_kwargs": {"path": str(data)},
        "test_split": "test",
        "num_fewshot": 0,
        "metric_list": [
            {"metric": name, "aggregation": "mean", "higher_is_better": better}
            for name, better in _TASKS[kind]["metrics"].items()
        ],
        "metadata": {"version": 1.0},
    }
    if generation is not None:
        config["generation_kwargs"] = dict(generation)
    write_yaml(home / "task.yaml", config)
    return Pack(folder=home, task=task, rows=len(rows), digest=digest)


def write_yaml(path: Path, config: Mapping[str, Any]) -> None:
    """Write a task file; ``Function`` values become ``!function`` tags."""
    path.write_text(yaml.dump(dict(config), Dumper=_Dumper, sort_keys=True, allow_unicode=True), encoding="utf-8")


def choose(rows: Sequence[Mapping[str, Any]], documents: int | None) -> list[dict[str, Any]]:
    """At most ``documents`` different rows, drawn by the hash of their content.

    The draw is the same for every model and seed, and a larger one contains every smaller one, so values of
    different gates and stages can be paired.
    """
    ordered = sorted({_digest(row): row for row in rows}.items(), key=lambda item: item[0])
    return [dict(row) for _, row in ordered[:documents]]


def choose_evenly(
    rows: Sequence[Mapping[str, Any]], documents: int, group: Callable[[Mapping[str, Any]], str]
) -> list[dict[str, Any]]:
    """At most ``documents`` rows with equally many of each group, where the groups have that many."""
    groups: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        groups.setdefault(group(row), []).append(row)
    share = max(1, documents // max(1, len(groups)))
    return [row for name in sorted(groups) for row in choose(groups[name], share)]


def _digest(row: Mapping[str, Any]) -> str:
    return hashlib.sha256(_encode(row).encode()).hexdigest()
