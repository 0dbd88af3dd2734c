"""``platform study``: many runs of one experiment over one store, and a table of what they show together."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .options import STORE, ExperimentName, Overrides, PluginRequests, StoreFolder, plan_of, requests_of

if TYPE_CHECKING:
    from subprocess import Popen

    from rich.console import Console

    from ..run.plan import Plan
    from ..run.store import Store
    from ..study.carrying import Carrier
    from ..study.definition import Definition
    from ..study.storage import StudyFolder

STUDIES = Path("studies")


def command(
    experiment: ExperimentName,
    name: Annotated[
        str | None, typer.Option("--name", help="The study's name (the experiment's if not given).")
    ] = None,
    planned: Annotated[bool, typer.Option("--plan", help="Count trainings, shared and not, and run nothing.")] = False,
    space: Annotated[str | None, typer.Option("--space", help="Another search space than the experiment's.")] = None,
    seeds: Annotated[str | None, typer.Option("--seeds", metavar="0,1,2", help="Seeds of every point.")] = None,
    sampler: Annotated[str | None, typer.Option("--sampler", help="How points are chosen (study.sampler).")] = None,
    trials: Annotated[int | None, typer.Option("--trials", min=1, help="How many points in all.")] = None,
    workers: Annotated[int, typer.Option("--workers", min=1, help="Processes on this machine.")] = 1,
    storage: Annotated[
        str | None, typer.Option("--storage", help="A storage URL of Optuna's, for many machines.")
    ] = None,
    overrides: Overrides = None,
    plugins: PluginRequests = None,
    store: StoreFolder = STORE,
    studies: Annotated[Path, typer.Option("--studies", help="Folder of studies.")] = STUDIES,
    allow_plugin_drift: Annotated[
        bool, typer.Option("--allow-plugin-drift", help="Go on although plugin code changed; the runs are marked.")
    ] = False,
    join: Annotated[int | None, typer.Option("--join", hidden=True)] = None,
) -> None:
    """Run what the experiment's study section describes: orders of phases, or settings; run it again to go on.

    Every point is carried out for every seed. Stages that points share are trained once. Several workers, started by
    --workers or by hand, can share one study.
    """
    from ..config.problems import located
    from ..run.store import Store
    from ..study.definition import define
    from ..study.storage import StudyFolder

    said = [*(overrides or ()), *_study_overrides(space, seeds, sampler, trials)]
    where = Store(store)
    plan = plan_of(experiment, said, plugins, where)
    with located(plan.locate):
        definition = define(plan)
    make = partial(_carrier, experiment, said, plugins, where, definition, plan)
    if planned:
        from ..study.outlook import outlook
        from .studying import show_outlook

        show_outlook(definition, outlook(definition, make(studies / _named(name, plan), None, False)))
        return
    again = [experiment, "--name", _named(name, plan), "--store", str(store), "--studies", str(studies)]
    again += [part for text in said for part in ("--set", text)]
    again += [part for request in requests_of(plugins) for part in ("--plugins", request)]
    again += ["--storage", storage] if storage is not None else []
    again += ["--allow-plugin-drift"] if allow_plugin_drift else []
    _run(
        definition,
        plan,
        where,
        StudyFolder(path=studies / _named(name, plan)),
        storage,
        join is None,
        again if join is None else [],
        workers,
        lambda folder, stop: make(folder, stop, allow_plugin_drift),
    )


def _study_overrides(space: str | None, seeds: str | None, sampler: str | None, trials: int | None) -> list[str]:
    said = {"study.space": space, "study.sampler": sampler, "study.trials": trials}
    texts = [f"{key}={value}" for key, value in said.items() if value is not None]
    if seeds is not None:
        try:
            numbers = [int(part) for part in seeds.split(",")]
        except ValueError:
            raise typer.BadParameter(f"'{seeds}' is no list of seeds such as 0,1,2", param_hint="--seeds") from None
        texts.append(f"study.seeds={numbers}")
    return texts


def _named(name: str | None, plan: Plan) -> str:
    return name if name is not None else plan.experiment.name


def _carrier(
    experiment: str,
    overrides: list[str],
    plugins: list[str] | None,
    store: Store,
    definition: Definition,
    plan: Plan,
    folder: Path,
    stop: Any,
    drift: bool,
) -> Carrier:
    from ..run.interrupt import Interruption
    from ..study.carrying import Carrier, setting
    from .studying import quiet_watch

    return Carrier(
        experiment=experiment,
        overrides=overrides,
        plugins=requests_of(plugins),
        store=store,
        runs=folder / "runs",
        section=definition.section,
        interruption=stop if stop is not None else Interruption(),
        allow_drift=drift,
        watch=quiet_watch,
        places={
            setting(key, value): plan.locate(("study", "set", key)) for key, value in definition.section.set.items()
        },
    )


def _run(
    definition: Definition,
    plan: Plan,
    store: Store,
    folder: StudyFolder,
    storage: str | None,
    first: bool,
    again: list[str],
    workers: int,
    carrier: Any,
) -> None:
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    import datasets
    from transformers.utils import logging

    from ..run.interrupt import Interrupted, interruptible
    from ..run.processes import start_processes
    from ..study.results import results_of, write_results
    from ..study.samplers import pruner_of, sampler_of
    from ..study.search import run_study
    from ..study.storage import open_study, study_definition
    from ..study.workers import Worker
    from .studying import show_results
    from .terminal import make_console

    warnings.filterwarnings("ignore", category=FutureWarning, module=r"(transformers|trl)(\.|$)")
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    datasets.disable_progress_bars()
    console = make_console()
    described = study_definition(
        replace(definition.experiment, order=None),
        definition.section,
        definition.space,
        definition.choice,
        also={"data": plan.corpus.fingerprint()},
    )
    study = open_study(
        folder,
        described,
        definition.choice,
        sampler=sampler_of(definition.choice, definition.space, seed=definition.experiment.seed),
        pruner=pruner_of(definition.choice),
        url=storage,
        store=store.root,
    )
    start_processes(plan.experiment.run.threads)
    with (
        interruptible(lambda _: console.print("stopping; run the same command again to go on")) as stop,
        _others(folder, workers - 1 if first else 0, again, console),
    ):
        try:
            run_study(
                study,
                definition.section,
                definition.space,
                carrier(folder.path, stop),
                worker=Worker(folder, remote=storage is not None),
                stop=stop.check,
                show=lambda news: console.print(news.words, markup=False, soft_wrap=True),
            )
        except Interrupted as stopped:
            raise typer.Exit(stopped.exit_code) from None
    if first:
        results = results_of(definition, study, store, plan.registry)
        write_results(folder, results)
        show_results(console, results)
        console.print(f"written to {folder.results}", markup=False, soft_wrap=True)


@contextmanager
def _others(folder: StudyFolder, count: int, again: list[str], console: Console) -> Iterator[None]:
    """Run more workers of the same study beside the body; they end by themselves, or with it if it fails.

    They never import from the working directory, whatever it holds.
    """
    import subprocess

    started: list[Popen[bytes]] = []
    logs = []
    try:
        for number in range(1, count + 1):
            log = (folder.path / f"worker-{number}.log").open("ab")
            logs.append(log)
            program = [sys.executable, "-P", "-m", f"{__package__}.app", "study", *again, "--join", str(number)]
            started.append(subprocess.Popen(program, stdout=log, stderr=subprocess.STDOUT))
        yield
        for number, process in enumerate(started, start=1):
            if process.wait() != 0:
                log_file = folder.path / f"worker-{number}.log"
                console.print(f"worker {number} ended with code {process.returncode}; see {log_file}", markup=False)
    finally:
        for process in started:
            if process.poll() is None:
                process.terminate()
        for process in started:
            process.wait()
        for log in logs:
            log.close()
