"""Stock lm-eval tasks on local copies: the stock file included, only the data source replaced."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ..registry.errors import ConfigError, DataError
from .packs import Function, choose, write_yaml
from .processing import read_jsonl

_ROWS = __name__.rpartition(".")[0] + ".processing.rows"


@dataclass(frozen=True, slots=True, kw_only=True)
class StockTask:
    """A stock task (or group of tasks) and its local copy.

    ``file`` lies under the data root; ``subtask`` names the field whose values tell the members of a group apart;
    ``stock`` is the stock task file and ``name`` the stock task name, both formatted with that value; ``split`` is
    the split the stock file evaluates; ``fields`` makes a stock row of a local one.
    """

    file: str
    subtask: str
    stock: str
    name: str
    split: str
    fields: Callable[[Mapping[str, Any]], dict[str, Any]]
    metrics: tuple[str, ...] = ("acc",)
    chance: float | None = None
    revision: int = 1


def _blimp(row: Mapping[str, Any]) -> dict[str, Any]:
    """A line of BLiMP's own files as a row of its hub dataset, which calls the pair number otherwise."""
    kept = {key: value for key, value in row.items() if key != "pairID"}
    return kept | {"pair_id": int(row["pairID"])}


STOCK: dict[str, StockTask] = {
    "blimp": StockTask(
        file="evals/blimp/blimp_part.jsonl.gz",
        subtask="UID",
        stock="blimp/{}.yaml",
        name="blimp_{}",
        split="train",
        fields=_blimp,
        chance=0.5,
    ),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class StockPack:
    """Written task files: the folder, lm-eval's task names and row counts by subtask, where the data came from, and
    the bytes of the longest row, which bound its tokens."""

    folder: Path
    tasks: Mapping[str, str]
    rows: Mapping[str, int]
    source: Path
    longest: int
    evidence: Mapping[str, Any] = field(default_factory=dict)


def stock_task(name: str) -> StockTask:
    """The entry of a stock task; ``ConfigError`` with the nearest name where there is none."""
    if name not in STOCK:
        near = get_close_matches(name, STOCK, n=1)
        hint = f"did you mean '{near[0]}'?" if near else f"known are {', '.join(sorted(STOCK))}."
        raise ConfigError(f"benchmark '{name}' has no local copy that is known here: {hint}")
    return STOCK[name]


def write_stock(
    folder: Path, name: str, path: Path, subtasks: tuple[str, ...] = (), documents: int | None = None
) -> StockPack:
    """Write task files that run stock task ``name`` on the local file at ``path``.

    ``subtasks`` selects members of the group (all that the file holds where empty), ``documents`` caps their rows
    in all, spread evenly. ``DataError`` where the file is missing, holds no rows or a subtask that lm-eval has not.
    """
    task = stock_task(name)
    if not path.is_file():
        raise DataError(f"benchmark '{name}' needs {path}, which is not there: set data.root or the gate's path.")
    members: dict[str, list[dict[str, Any]]] = {}
    for row in read_jsonl(path):
        members.setdefault(str(row[task.subtask]), []).append(task.fields(row))
    if not members:
        raise DataError(f"benchmark '{name}' has no rows in {path}: fetch the file again.")
    for subtask in subtasks:
        if subtask not in members:
            near = get_close_matches(subtask, members, n=1)
            hint = f"did you mean '{near[0]}'?" if near else "see the file for its names."
            raise ConfigError(f"benchmark '{name}' has no '{subtask}' in {path}: {hint}")
    home = (folder / f"stock-{name}").resolve()
    home.mkdir(parents=True, exist_ok=True)
    names = sorted(subtasks or members)
    each = None if documents is None else max(1, documents // len(names))
    chosen = {subtask: choose(members[subtask], each) for subtask in names}
    for subtask, rows in chosen.items():
        _write_subtask(home, task, subtask, rows)
    return StockPack(
        folder=home,
        tasks={subtask: task.name.format(subtask) for subtask in chosen},
        rows={subtask: len(rows) for subtask, rows in chosen.items()},
        source=path,
        longest=max(len(json.dumps(row, ensure_ascii=False).encode()) for rows in chosen.values() for row in rows),
        evidence={"benchmark": name, "file": path.name, "subtasks": len(chosen)},
    )


def _write_subtask(home: Path, task: StockTask, subtask: str, rows: list[dict[str, Any]]) -> None:
    stock = stock_folder() / task.stock.format(subtask)
    if not stock.is_file():
        raise DataError(f"lm-eval has no task file {task.stock.format(subtask)}: select other subtasks.")
    data = home / f"{subtask}.jsonl"
    data.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    write_yaml(
        home / f"{subtask}.yaml",
        {
            "include": str(stock),
            "task": task.name.format(subtask),
            "custom_dataset": Function(_ROWS),
            "dataset_kwargs": {"path": str(data), "split": task.split},
        },
    )


def stock_folder() -> Path:
    """Where the installed lm-eval keeps its task files."""
    spec = find_spec("lm_eval")
    if spec is None or spec.origin is None:
        raise DataError("lm-eval is not installed: install phasegate with its dependencies.")
    return Path(spec.origin).parent / "tasks"
