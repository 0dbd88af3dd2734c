"""``platform ablation``: what a trained model loses without each of its experts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .options import RUNS, STORE, PluginRequests, RunsFolder, StoreFolder, requests_of
from .printing import echo

if TYPE_CHECKING:
    from ..run.records import RunFolder
    from ..run.store import Store

_GATE = "phasegate:ablation"


def command(
    target: Annotated[
        str, typer.Argument(metavar="STAGE-OR-RUN", help="A run folder (its last stage), a stage by name, or a folder.")
    ],
    phase: Annotated[str | None, typer.Option("--phase", help="Another phase of the run than its last.")] = None,
    experiment: Annotated[
        str | None, typer.Option("--experiment", help="Where the data comes from; the run's own if left out.")
    ] = None,
    pairs: Annotated[
        bool, typer.Option("--pairs", help="Also every pair of experts, and pairs of one domain.")
    ] = False,
    zero: Annotated[bool, typer.Option("--zero", help="Also zero outputs instead of masking and re-routing.")] = False,
    questions: Annotated[int, typer.Option("--questions", min=0, help="Multiple-choice questions to ask as well.")] = 0,
    documents: Annotated[int | None, typer.Option("--documents", min=1, help="Held-out documents in all.")] = None,
    plugins: PluginRequests = None,
    store: StoreFolder = STORE,
    runs: RunsFolder = RUNS,
    as_json: Annotated[bool, typer.Option("--json", help="Print all tables as JSON.")] = False,
) -> None:
    """Mask every expert and print what the model loses by domain, and whether the owners lose most."""
    from transformers.utils import logging

    from ...registry.errors import ConfigError
    from ..run.comparison import experiment_of
    from ..run.store import Store
    from .listing import print_json

    logging.disable_progress_bar()
    logging.set_verbosity_error()
    checkpoint, run = find_target(target, phase, Store(store), runs)
    source = experiment or (str(run.experiment) if run is not None else None)
    if source is None:
        raise ConfigError(f"no run below {runs} tells which data '{target}' was trained on; name it with --experiment.")
    options = {"pairs": pairs, "zero": zero, "questions": questions}
    tables = measure(checkpoint, experiment_of(source, requests_of(plugins)), options, documents)
    if as_json:
        print_json(tables)
    else:
        show(tables)


def find_target(name: str, phase: str | None, store: Store, runs: Path) -> tuple[Path, RunFolder | None]:
    """The checkpoint that a user means by a run, a stage's name or a folder, and the run it belongs to, if known."""
    from ...registry.errors import ConfigError
    from ...registry.suggest import did_you_mean
    from ..run.checkpoints import find_checkpoint
    from ..run.comparison import find_run, run_of_stage, stages_of

    given = Path(name)
    if not given.is_dir() or any((folder / "config.json").is_file() for folder in (given, given / "checkpoint")):
        checkpoint = find_checkpoint(name, store.root)
        return checkpoint, run_of_stage(checkpoint.resolve().parent.name, runs)
    run = find_run(given)
    stages = {stage.phase: stage.stage for stage in stages_of(run, store)}
    wanted = phase or list(stages)[-1]
    if wanted not in stages:
        raise ConfigError(
            f"the run {run.path} has no phase '{wanted}'.{did_you_mean(wanted, stages)} Phases: {', '.join(stages)}."
        )
    return stages[wanted].checkpoint, run


def measure(
    checkpoint: Path, setting: tuple[Any, Any, Path], options: Mapping[str, Any], documents: int | None
) -> dict[str, Any]:
    """The tables that the gate makes of a checkpoint; ``DataError`` where it cannot measure."""
    import json
    from tempfile import TemporaryDirectory

    from ...evals.ablation import TABLES
    from ...evals.context import MeasureContext
    from ...registry.errors import DataError
    from ..data.corpus import Corpus
    from ..model.loading import load_model
    from ..model.parameters import routers_of
    from ..model.tokenizer import load_tokenizer
    from ..run.processes import start_processes
    from ..run.seeds import derive

    experiment, plugins, base = setting
    start_processes(experiment.run.threads)
    registry = plugins.components()
    corpus = Corpus.load(experiment.data, registry, base)
    with TemporaryDirectory() as folder:
        context = MeasureContext(
            model=load_model(checkpoint, registry),
            tokenizer=load_tokenizer(checkpoint),
            view=corpus.view,
            domains=corpus.domains,
            folder=Path(folder),
            root=corpus.root,
            routers=routers_of,
            documents=documents,
            seed=derive(experiment.seed, "gates"),
            batch_size=experiment.run.eval_batch_size,
            length=experiment.data.sequence_length,
        )
        found = registry.build("gate", _GATE, options).measure(context)
        path = Path(folder) / TABLES
        if not path.is_file():
            raise DataError(f"the experts of {checkpoint} could not be taken away: {found['match'].missing}.")
        tables: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return tables


def show(tables: Mapping[str, Any]) -> None:
    """Print the tables and, below each, what they say."""
    domains = tables["domains"]
    echo(
        f"dQ: mean log-likelihood per token ({tables['unit']}) without the expert minus the full model's, on "
        f"{sum(tables['documents'].values())} held-out documents ({tables['tokens']} tokens); negative is harm; bounds "
        "are one-sided at 95 %; * marks a most affected domain whose bounds lie below all others'"
    )
    for mode, agreement in tables["agreement"].items():
        _table(
            f"single experts, {_how(mode)}",
            ("layer", "expert", "owner", "share", *_COMMON, *domains),
            [
                (
                    row["layer"],
                    row["expert"],
                    row["owner"] or "–",
                    _owner_share(tables, row),
                    *_common(row),
                    *_each(row),
                )
                for row in tables["single"]
                if row["mode"] == mode
            ],
        )
        echo(_told(agreement["single"], "(layer, expert)", len(domains)))
        if agreement["rank_correlation"] is not None:
            echo(f"Spearman's correlation of shares and losses: {agreement['rank_correlation']:.2f}")
        rows: list[tuple[object, ...]] = [
            (row["expert"], row["owner"] or "–", *_common(row), *_each(row))
            for row in tables["experts"]
            if row["mode"] == mode
        ]
        for row in tables["paper"]:
            rows.append((f"paper's {row['expert']}", "", f"{row['mean']:+g} points", "", row["most"], row["drop"]))
        _table(
            f"experts over all layers, {_how(mode)}; in the form of the paper's table 7.4, its four rows below",
            ("expert", "owner", *_COMMON, *domains),
            rows,
        )
        echo(_told(agreement["experts"], "experts", len(domains)))
    if "pairs" in tables:
        _show_pairs(tables)
    if "choice" in tables:
        _table(
            f"accuracy on {tables['choice'][0]['questions']} questions without each expert in any layer, masked",
            ("expert", "change", "bounds", "most affected", "its change"),
            [
                (row["expert"], *_with_bounds(row["mean"]), row["most"], _signed(row["drop"]))
                for row in tables["choice"]
            ],
        )


_COMMON = ("dQ", "bounds", "most affected", "its dQ")


def _show_pairs(tables: Mapping[str, Any]) -> None:
    _table(
        "pairs of experts over all layers, masked; interaction: beyond the sum of both alone",
        ("pair", *_COMMON, "interaction", "bounds"),
        [
            (" + ".join(map(str, row["experts"])), *_common(row), *_with_bounds(row["interaction"]))
            for row in tables["pairs"]
        ],
    )
    parts = ("first", "second", "both")
    _table(
        "the two busiest experts of each domain in every layer, masked; dQ of that domain",
        ("domain", "experts by layer", *parts, "interaction", "bounds"),
        [
            (
                row["domain"],
                "  ".join(f"{one}+{other}" for one, other in row["experts"]),
                *(_signed(row[name]["value"]) for name in parts),
                *_with_bounds(row["interaction"]),
            )
            for row in tables["domain_pairs"]
        ],
    )


def _table(title: str, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    from .listing import print_table

    echo(f"\n{title}")
    print_table(columns, rows)


def _how(mode: str) -> str:
    return "masked and re-routed" if mode == "mask" else "outputs zeroed"


def _owner_share(tables: Mapping[str, Any], row: Mapping[str, Any]) -> str:
    """The owner's part of the expert's tokens if every domain had equally many."""
    if row["owner"] is None:
        return "–"
    shares = [domain[row["expert"]] for domain in tables["shares"][tables["layers"].index(row["layer"])]]
    return f"{shares[tables['domains'].index(row['owner'])] / sum(shares):.0%}"


def _common(row: Mapping[str, Any]) -> tuple[str, ...]:
    return (*_with_bounds(row["mean"]), row["most"] + ("*" if row["clear"] else ""), _signed(row["drop"]))


def _each(row: Mapping[str, Any]) -> tuple[str, ...]:
    return tuple(_signed(change["value"]) for change in row["domains"].values())


def _with_bounds(change: Mapping[str, Any]) -> tuple[str, str]:
    return (_signed(change["value"]), _bounds(change))


def _told(counts: Mapping[str, int], what: str, domains: int) -> str:
    from ...evals.intervals import wilson

    if not counts["n"]:
        return "no expert gets a token of this text"
    low, high = wilson(counts["hits"], counts["n"])
    return (
        f"{counts['hits']} of {counts['n']} {what} hurt their owner most ({counts['hits'] / counts['n']:.0%}, bounds "
        f"{low:.0%} and {high:.0%}; chance {1 / domains:.0%}); of the {counts['clear']} whose most affected domain is "
        f"clear, {counts['clear_hits']}"
    )


def _signed(value: float) -> str:
    return f"{value:+.3f}"


def _bounds(change: Mapping[str, float | None]) -> str:
    low, high = change["low"], change["high"]
    return "–" if low is None or high is None else f"[{low:+.3f}, {high:+.3f}]"
