"""Stock lm-eval tasks on local copies: the stock file included, only the data source replaced."""

from __future__ import annotations

import hashlib
import heapq
import json
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import yaml

from ..registry.errors import ConfigError, DataError
from ..registry.suggest import did_you_mean
from .packs import Function, choose, write_yaml
from .processing import read_jsonl
from .stock_tasks import ALIASES, StockTask, stock_task

_PACKAGE = __name__.rpartition(".")[0]


@dataclass(frozen=True, slots=True, kw_only=True)
class StockPack:
    """Written task files: the folder, lm-eval's task names and row counts by member (one, named like the task, where
    it is no group), where the data came from, and how many rows of the split it ``held``."""

    folder: Path
    tasks: Mapping[str, str]
    rows: Mapping[str, int]
    source: Path
    held: int
    evidence: Mapping[str, Any] = field(default_factory=dict)


def write_stock(
    folder: Path,
    name: str,
    path: Path,
    subtasks: Sequence[str] = (),
    documents: int | None = None,
    examples: Path | None = None,
) -> StockPack:
    """Write task files that run stock task ``name`` on the local file at ``path``.

    ``subtasks`` selects members of the group (all that the file holds where empty), ``documents`` caps their rows
    in all: spread evenly where members count alike, by size where documents do. ``examples`` is the file of few-shot
    examples. ``DataError`` where a file is missing, holds no rows or a member that lm-eval has not.
    """
    name = ALIASES.get(name, name)
    task = stock_task(name)
    members = _members(name, task, path)
    for subtask in subtasks:
        if subtask not in members:
            near = did_you_mean(subtask, members) or " See the file for its names."
            raise ConfigError(f"benchmark '{name}' has no '{subtask}' in {path}.{near}")
    shown = _members(name, task, examples) if examples is not None else {}
    home = (folder / f"stock-{name}").resolve()
    home.mkdir(parents=True, exist_ok=True)
    chosen = _spread({key: members[key] for key in sorted(subtasks or members)}, documents, task.weighted)
    for member, rows in chosen.items():
        _write_member(home, task, member, rows, shown.get(member, []))
    return StockPack(
        folder=home,
        tasks={member: task.name.format(member) for member in chosen},
        rows={member: len(rows) for member, rows in chosen.items()},
        source=path,
        held=sum(map(len, members.values())),
        evidence={"benchmark": name, "file": path.name, "subtasks": len(chosen)},
    )


def shares(sizes: Mapping[str, int], documents: int | None, weighted: bool) -> dict[str, int]:
    """How many documents each member gives: equally many, at least one, or by size (Sainte-Laguë's divisors).

    More documents never take one from a member, so that a larger selection holds every smaller one.
    """
    if documents is None:
        return dict(sizes)
    if not weighted:
        return {name: min(size, max(1, documents // len(sizes))) for name, size in sizes.items()}
    given = dict.fromkeys(sizes, 0)
    heap = [(-float(size), name) for name, size in sorted(sizes.items()) if size]
    heapq.heapify(heap)
    for _ in range(min(documents, sum(sizes.values()))):
        _, name = heapq.heappop(heap)
        given[name] += 1
        if given[name] < sizes[name]:
            heapq.heappush(heap, (-sizes[name] / (2 * given[name] + 1), name))
    return {name: count for name, count in given.items() if count}


def places(docs: Sequence[Mapping[str, Any]], count: int) -> list[int]:
    """The places of ``count`` documents, drawn by the hash of their content as ``packs.choose`` draws them."""

    def drawn(place: int) -> str:
        content = json.dumps(docs[place], sort_keys=True, ensure_ascii=False, default=str)
        return hashlib.sha256(content.encode()).hexdigest()

    return sorted(sorted(range(len(docs)), key=drawn)[:count])


def stock_folder() -> Path:
    """Where the installed lm-eval keeps its task files."""
    spec = find_spec("lm_eval")
    if spec is None or spec.origin is None:
        raise DataError("lm-eval is not installed: install phasegate with its dependencies.")
    return Path(spec.origin).parent / "tasks"


def stock_members(task: StockTask) -> tuple[str, ...]:
    """The members of a group that lm-eval has files for; none where the task is no group."""
    if task.member is None:
        return ()
    pattern = Path(task.stock)
    before, _, after = pattern.name.partition("{}")
    files = (stock_folder() / pattern.parent).glob(f"{before}*{after}")
    return tuple(sorted(file.name[len(before) : -len(after)] for file in files if not file.name.startswith("_")))


def stock_file(task: StockTask, member: str) -> Path:
    """The file that lm-eval has for a member of a task, or for the task where it is no group.

    ``DataError`` where it has none. Names of members come from data and from experiments: none of them leads out of
    lm-eval's own folder, since what lies elsewhere could name functions to run.
    """
    found = stock_folder() / task.stock.format(member)
    plain = not task.member or (member not in {"", ".", ".."} and not {"/", "\\"} & set(member))
    if not plain or not found.is_file():
        raise DataError(f"lm-eval has no task file {task.stock.format(member)}: select other subtasks.")
    return found


def stock_digests(task: StockTask, members: Iterable[str]) -> dict[str, str]:
    """SHA-256 of every file that makes the prompts and scores: the stock files, what they include, and the Python
    beside them, by their place in lm-eval's folder."""
    root = stock_folder()
    open_files = [stock_file(task, member) for member in members] if task.member else [root / task.stock]
    found: dict[str, str] = {}
    while open_files:
        file = open_files.pop()
        place = file.relative_to(root).as_posix()
        if place in found:
            continue
        if not file.is_file():
            raise DataError(f"lm-eval has no task file {place}: select other members.")
        content = file.read_bytes()
        found[place] = hashlib.sha256(content).hexdigest()
        if file.suffix != ".py":
            included = read_stock(file).get("include")
            names = included if isinstance(included, list) else [included] if included else []
            open_files += [file.parent / name for name in names]
            open_files += sorted(file.parent.glob("*.py"))
    return dict(sorted(found.items()))


class _Loader(yaml.SafeLoader):
    """Reads ``!function`` tags as names and imports nothing."""


_Loader.add_constructor("!function", lambda _loader, node: Function(str(node.value)))


def read_stock(path: Path) -> dict[str, Any]:
    """A stock task file as data, functions by name."""
    found: dict[str, Any] = yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)
    return found


def stock_config(task: StockTask, member: str) -> dict[str, Any]:
    """A stock task's file with what it includes, functions by name."""

    def merged(file: Path) -> dict[str, Any]:
        config = read_stock(file)
        return (merged(file.parent / config["include"]) if "include" in config else {}) | config

    return merged(stock_file(task, member))


def _members(name: str, task: StockTask, path: Path) -> dict[str, list[dict[str, Any]]]:
    """Hub rows of a local file by member; all under the task's name where it is no group."""
    if not path.is_file():
        raise DataError(f"benchmark '{name}' needs {path}, which is not there: set data.root or the gate's path.")
    found: dict[str, list[dict[str, Any]]] = {}
    try:
        for row in read_jsonl(path):
            made = task.fields(row)
            if made is not None:
                found.setdefault(str(row[task.member]) if task.member else name, []).append(made)
    except (KeyError, TypeError, ValueError, OSError, EOFError, zlib.error) as error:
        raise DataError(
            f"benchmark '{name}' cannot read {path} ({type(error).__name__}: {error}): fetch the file again."
        ) from error
    if not found:
        raise DataError(f"benchmark '{name}' has no rows in {path}: fetch the file again.")
    return found


def _spread(
    members: Mapping[str, list[dict[str, Any]]], documents: int | None, weighted: bool
) -> dict[str, list[dict[str, Any]]]:
    counts = shares({name: len(rows) for name, rows in members.items()}, documents, weighted)
    return {name: choose(members[name], count) for name, count in counts.items()}


def _write_member(
    home: Path, task: StockTask, member: str, rows: Sequence[Mapping[str, Any]], shown: Sequence[Mapping[str, Any]]
) -> None:
    stock = stock_file(task, member)
    source: dict[str, Any] = {"path": str(_write_rows(home / f"{member}.jsonl", rows)), "split": task.split}
    if shown:
        source["examples"] = str(_write_rows(home / f"{member}-examples.jsonl", shown))
        source["examples_split"] = task.examples_split
    config = _own_code(stock) if task.needs == "code" else {"include": str(stock)}
    write_yaml(
        home / f"{member}.yaml",
        config
        | {
            "task": task.name.format(member),
            "custom_dataset": Function(f"{_PACKAGE}.processing.rows"),
            "dataset_kwargs": source,
        },
    )


def write_code_task(folder: Path, name: str, task: StockTask) -> Path:
    """Write the stock task that runs code, on the hub's data, with our runner; return its folder."""
    home = (folder / f"hub-{name}").resolve()
    home.mkdir(parents=True, exist_ok=True)
    stock = stock_folder() / task.stock
    source = {key: value for key, value in read_stock(stock).items() if key in ("dataset_path", "dataset_name")}
    write_yaml(home / f"{name}.yaml", _own_code(stock) | source)
    return home


def _own_code(stock: Path) -> dict[str, Any]:
    """HumanEval's stock file without its data, and with our metric for its own: the functions of a file are imported
    when it is included, and this one's load a metric from the hub."""
    config = {key: value for key, value in read_stock(stock).items() if not key.startswith("dataset_")}
    config["metric_list"] = [one | {"metric": Function(f"{_PACKAGE}.code.pass_at_k")} for one in config["metric_list"]]
    custom = {"function": "custom", "filter_fn": Function(f"{_PACKAGE}.code.build_predictions")}
    return config | {"filter_list": [one | {"filter": [custom]} for one in config["filter_list"]]}


def _write_rows(path: Path, rows: Sequence[Mapping[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path
