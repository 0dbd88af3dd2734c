"""A whole experiment in about a second: a two-layer model on generated data, run through the command."""

from __future__ import annotations

import contextlib
import io
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .collecting import quick_collections

NANO: Mapping[str, Any] = {
    "name": "nano",
    "size": "nano",
    "model": {
        "hidden_size": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "head_dim": 8,
        "moe_intermediate_size": 8,
        "num_experts": 4,
    },
    "tokenizer": {"vocab_size": 320, "documents": 100},
    "data": {
        "sequence_length": 32,
        "sources": {
            "world": {
                "use": "microworld",
                "head": 2,
                "rare": 1,
                "contested": 1,
                "unknown": 2,
                "hard": 1,
                "training_documents": 150,
                "chats": 40,
                "pairs": 20,
                "heldout_chats": 8,
                "heldout_pairs": 8,
                "needles": 4,
            }
        },
    },
    "run": {"logging_steps": 1, "threads": 1},
    "phases": {
        "foundation": {
            "steps": {"pretrain": {"steps": 2, "rows": 2}},
            "gates": {
                "knowledge": None,
                "load-low": None,
                "load-high": None,
                "plateau": None,
                "finite": {"use": "logged", "metric": "last", "key": "loss/task", "at_most": 20.0},
            },
            "policy": {"extensions": 0},
        }
    },
}
"""The experiment of ``nano_run``: one phase of two optimiser steps, and a gate that any model passes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NanoRun:
    """What a run through the command left: exit code, what it printed, and its record.

    ``stages`` are the references of stages.json in the order of the curriculum, ``folders`` their folders in the store,
    ``metrics`` the training log of each phase by name. ``plan`` and ``manifest`` are empty and ``folder`` is None where
    the run was refused before it began.
    """

    code: int
    stdout: str = field(repr=False)
    stderr: str = field(repr=False)
    folder: Path | None = None
    plan: Mapping[str, Any] = field(repr=False, default_factory=dict)
    manifest: Mapping[str, Any] = field(repr=False, default_factory=dict)
    stages: Sequence[Mapping[str, Any]] = ()
    folders: Mapping[str, Path] = field(default_factory=dict)
    metrics: Mapping[str, Sequence[Mapping[str, Any]]] = field(repr=False, default_factory=dict)


def run_nano(
    root: Path,
    *,
    plugins: Sequence[str] = (),
    overrides: Sequence[str] = (),
    experiment: Mapping[str, Any] | None = None,
) -> NanoRun:
    """Train the nano experiment below ``root`` by ``platform train`` in this process.

    ``experiment`` is laid over the nano experiment, mapping by mapping; ``overrides`` are what ``--set`` takes. A
    second run below the same root finds in its store what the first has trained.
    """
    from ..core.cli.app import main

    root.mkdir(parents=True, exist_ok=True)
    file = root / "nano.yaml"
    text = json.dumps(merged(NANO, experiment or {}), indent=1)  # YAML 1.2 holds all of JSON
    file.write_text(text, encoding="utf-8")
    before = set(_runs(root))
    arguments = ["train", str(file), f"--store={root / 'store'}", f"--runs={root / 'runs'}"]
    arguments += [f"--set={override}" for override in overrides]
    arguments += [f"--plugins={name}" for name in plugins]
    out, err = io.StringIO(), io.StringIO()
    with _quiet(), quick_collections(), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = 0
        try:
            main(arguments)
        except SystemExit as stop:
            code = int(stop.code or 0)
    folder = next((run for run in _runs(root) if run not in before), None)
    if folder is None:
        return NanoRun(code=code, stdout=out.getvalue(), stderr=err.getvalue())
    stages = _read(folder / "stages.json")["stages"]
    folders = {stage["phase"]: root / "store" / stage["stage"] for stage in stages}
    return NanoRun(
        code=code,
        stdout=out.getvalue(),
        stderr=err.getvalue(),
        folder=folder,
        plan=_read(folder / "plan.json"),
        manifest=_read(folder / "manifest.json"),
        stages=stages,
        folders=folders,
        metrics={
            phase: [json.loads(line) for line in (stage / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
            for phase, stage in folders.items()
        },
    )


def merged(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """``base`` with ``over`` laid over it: mappings are merged, everything else replaces."""
    result = deepcopy(dict(base))
    for key, value in over.items():
        known = result.get(key)
        result[key] = merged(known, value) if isinstance(known, Mapping) and isinstance(value, Mapping) else value
    return result


def _runs(root: Path) -> list[Path]:
    return sorted((root / "runs").glob("*/*/")) if (root / "runs").is_dir() else []


def _read(path: Path) -> dict[str, Any]:
    value: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return value


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """No hub, no width of a terminal: what is printed does not depend on where a test runs."""
    kept = {name: os.environ.get(name) for name in ("HF_HUB_OFFLINE", "COLUMNS")}
    os.environ.update(HF_HUB_OFFLINE="1", COLUMNS="200")
    try:
        yield
    finally:
        for name, value in kept.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
