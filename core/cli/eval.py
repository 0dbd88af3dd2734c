"""``platform eval``: stock benchmarks on a stage, a run or any Hugging Face model, and two models compared on them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .numbers import NOTHING, interval, number
from .options import STORE, PluginRequests, StoreFolder, requests_of
from .printing import echo

if TYPE_CHECKING:
    from ...registry.registry import Registry
    from ..run.benchmarking import Settings
    from ..run.benchmarks import BenchmarkRecord, Difference
    from ..run.store import Store
    from ..run.targets import Target


class Format(StrEnum):
    """How results are printed."""

    table = "table"
    json = "json"
    md = "md"


class Dtype(StrEnum):
    """What a model computes in."""

    auto = "auto"
    float32 = "float32"
    bfloat16 = "bfloat16"


def command(
    target: Annotated[
        str,
        typer.Argument(
            metavar="RUN|STAGE|HF-PATH",
            help="A run folder (its last stage), a stage by folder or name, an export, or any Hugging Face model.",
        ),
    ],
    tasks: Annotated[str, typer.Option("--tasks", metavar="A,B,…|all", help="Benchmarks; all: whose data is there.")],
    data_dir: Annotated[
        Path | None, typer.Option("--data-dir", help="Folder with local copies of the data; the hub if left out.")
    ] = None,
    compare: Annotated[
        str | None, typer.Option("--compare", metavar="OTHER", help="Another model to subtract, document by document.")
    ] = None,
    phase: Annotated[str | None, typer.Option("--phase", help="Another phase of the run than its last.")] = None,
    every_phase: Annotated[bool, typer.Option("--every-phase", help="All phases of the run.")] = False,
    documents: Annotated[int | None, typer.Option("--documents", min=1, help="At most so many of each task.")] = None,
    batch_size: Annotated[int, typer.Option("--batch-size", min=1, help="Requests per forward pass.")] = 64,
    dtype: Annotated[Dtype, typer.Option("--dtype", help="What to compute in; auto: as saved.")] = Dtype.auto,
    max_length: Annotated[
        int | None, typer.Option("--max-length", min=1, help="Context length in tokens; the model's own if left out.")
    ] = None,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Of few-shot examples and sampling.")] = 0,
    subtasks: Annotated[bool, typer.Option("--subtasks", help="Show the members of groups as well.")] = False,
    fresh: Annotated[bool, typer.Option("--fresh", help="Measure again what the store already has.")] = False,
    allow_code_execution: Annotated[
        bool, typer.Option("--allow-code-execution", help="Let benchmarks run programs that the model wrote.")
    ] = False,
    plugins: PluginRequests = None,
    store: StoreFolder = STORE,
    form: Annotated[Format, typer.Option("--format", help="How to print the results.")] = Format.table,
) -> None:
    """Measure benchmarks with intervals and chance levels; results are kept in the store and found again there."""
    from ...registry.errors import ConfigError, DataError
    from ..run.benchmarking import Settings, find_tasks
    from ..run.benchmarks import differences
    from ..run.store import Store
    from ..run.targets import find_targets

    if data_dir is not None and not data_dir.is_dir():
        raise ConfigError(f"--data-dir {data_dir} is no folder; name the folder that holds evals/, or leave it out.")
    where = Store(store)
    settings = Settings(
        root=data_dir,
        documents=documents,
        batch_size=batch_size,
        dtype=str(dtype),
        seed=seed,
        max_length=max_length,
        allow_code=allow_code_execution,
        fresh=fresh,
    )
    names = find_tasks(tasks, settings)
    targets = find_targets(target, where, phase, every_phase)
    others = () if compare is None else find_targets(compare, where)
    found = _measure([*targets, *others], names, settings, where, requests_of(plugins))
    records = found[: len(targets)]
    changes = [
        [change for one, other in zip(row, found[-1], strict=True) for change in differences(one, other)]
        for row in (records if others else [])
    ]
    _show(form, found, [*zip(records, changes, strict=False)], subtasks)
    if all(record.missing is not None for row in records for record in row):
        reasons = "; ".join(dict.fromkeys(f"{record.task}: {record.missing}" for record in records[0]))
        raise DataError(f"nothing was evaluated: {reasons}")


Records = Sequence["BenchmarkRecord"]


def _measure(
    targets: Sequence[Target],
    tasks: Sequence[str],
    settings: Settings,
    store: Store,
    requests: Sequence[str],
) -> list[Records]:
    """The records of every model; progress goes to stderr, beside the results."""
    import os

    from ..run.benchmarking import measure
    from ..run.targets import plugins_of

    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")

    def tell(text: str) -> None:
        echo(text, err=True)

    def registry_of(target: Target) -> Callable[[], Registry]:
        def registry() -> Registry:
            from transformers.utils import logging

            logging.disable_progress_bar()
            return plugins_of([target], requests)

        return registry

    return [measure(target, tasks, settings, store, registry_of(target), tell) for target in targets]


def _show(
    form: Format, found: Sequence[Records], compared: Sequence[tuple[Records, Sequence[Difference]]], subtasks: bool
) -> None:
    from .listing import print_json

    if form is Format.json:
        print_json(
            {
                "results": [_plain(record) for row in found for record in row],
                "comparisons": [
                    {
                        "model": dict(row[0].model),
                        "other": dict(found[-1][0].model),
                        "differences": [_difference(change) for change in changes],
                    }
                    for row, changes in compared
                ],
            }
        )
        return
    for row in found:
        model = row[0].model
        _table(
            form,
            f"{model['name']} ({model['digest'][:15]}, {row[0].dtype})",
            _COLUMNS,
            _rows(row, subtasks),
            _remarks(row),
        )
    for row, changes in compared:
        title = f"{row[0].model['name']} minus {found[-1][0].model['name']}, over the documents of both"
        shown = [change for change in changes if subtasks or "/" not in change.metric]
        _table(form, title, _CHANGES, [_change(change) for change in shown])


_COLUMNS = ("task", "metric", "value", "95 % interval", "chance", "documents", "verdict")
_CHANGES = ("task", "metric", "value", "other", "difference", "95 % interval", "p", "changed", "of", "words")


def _rows(records: Records, subtasks: bool) -> list[tuple[str, ...]]:
    rows = []
    for record in records:
        if record.missing is not None:
            rows.append((record.task, *[NOTHING] * 5, "not evaluated"))
        for name, measured in record.measurements.items():
            if subtasks or "/" not in name:
                rows.append((record.task, name, *_cells(measured)))
    return rows


def _remarks(records: Records) -> list[str]:
    """What there is to say of each task: why it was not evaluated, or which documents of which file it asked."""
    said = []
    for record in records:
        data = record.data
        if record.missing is not None:
            said.append(f"{record.task}: not evaluated: {record.missing}")
            continue
        longer = f"{data['longer']} longer than the model's context" if data.get("longer") else ""
        parts = (data.get("subset"), longer, data.get("network") and f"network {data['network']}")
        source = f"{data.get('file') or data.get('dataset')} ({str(data.get('sha256', ''))[:8]})"
        known = "from the cache" if record.cached else ""
        said.append(f"{record.task}: " + "; ".join(filter(None, (source, *parts, known))))
        said += [
            f"{record.task} {name}: not evaluated: {found.missing}"
            for name, found in record.measurements.items()
            if found.missing is not None and "/" not in name
        ]
    return said


def _cells(measured: Any) -> tuple[str, ...]:
    from ..run.benchmarks import against_chance, estimate

    if measured.missing is not None:
        return (*[NOTHING] * 4, "not evaluated")
    bounds = estimate(measured)
    shown = interval(bounds.low, bounds.high)
    return (number(measured.value), shown, number(measured.chance), str(measured.n), against_chance(measured))


def _change(change: Difference) -> tuple[str, ...]:
    if change.reason is not None:
        return (change.task, change.metric, *[NOTHING] * 7, change.words)
    return (
        change.task,
        change.metric,
        number(change.value),
        number(change.other),
        f"{change.difference:+.4g}",
        interval(change.low, change.high),
        number(change.p_value),
        f"{change.up} up, {change.down} down",
        str(change.n),
        change.words,
    )


def _table(
    form: Format, title: str, columns: Sequence[str], rows: Sequence[Sequence[str]], remarks: Sequence[str] = ()
) -> None:
    from .listing import print_table

    if form is Format.md:
        from ..report.rendering import plain

        lines = [f"**{plain(title)}**", "", _line(columns), f"|{' --- |' * len(columns)}", *map(_line, rows), ""]
        lines += [*(f"- {plain(remark)}" for remark in remarks), ""] if remarks else []
        echo("\n".join(lines))
        return
    echo(f"\n{title}")
    print_table(columns, rows)
    for remark in remarks:
        echo(remark)


def _line(cells: Sequence[str]) -> str:
    from ..report.rendering import plain

    return f"| {' | '.join(plain(str(cell)) for cell in cells)} |"


def _plain(record: BenchmarkRecord) -> dict[str, Any]:
    """A record for machines, without the values of single documents, which stand in the store."""
    from ...evals.records import measurement_to_json
    from ..run.benchmarks import against_chance, estimate

    measurements = {}
    for name, measured in record.measurements.items():
        plain = measurement_to_json(measured)
        del plain["per_document"]
        if measured.missing is None:
            bounds = estimate(measured)
            plain |= {"interval": [_finite(bounds.low), _finite(bounds.high)], "interval_confidence": 0.95}
            plain |= {"against_chance": against_chance(measured)}
        measurements[name] = plain
    told = ("key", "task", "config", "batch_size", "documents", "dtype", "max_length", "seed", "created", "missing")
    return {
        **{name: getattr(record, name) for name in told},
        **{name: dict(getattr(record, name)) for name in ("model", "data", "versions")},
        "cached": record.cached,
        "measurements": measurements,
    }


def _difference(change: Difference) -> dict[str, Any]:
    from dataclasses import asdict

    return {name: _finite(value) for name, value in asdict(change).items()} | {"words": change.words}


def _finite(value: Any) -> Any:
    import math

    return None if isinstance(value, float) and not math.isfinite(value) else value
