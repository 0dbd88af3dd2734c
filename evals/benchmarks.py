"""Benchmarks by name: stock lm-eval tasks on local copies or the hub, and refusal sets, measured on a model in memory.

What cannot be measured here is missing, with a sentence that says what to fetch; it is never a score.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any, Protocol

from ..registry.errors import ConfigError, DataError
from ..registry.suggest import did_you_mean, listing
from .bridge import finite
from .measurement import Measurement
from .quiet import quiet
from .refusal_sets import SETS, RefusalSet
from .stock_runs import StockRun
from .stock_tasks import ALIASES, STOCK, StockTask
from .undisturbed import undisturbed


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchmarkRequest:
    """A benchmark, its data and how to ask.

    ``root`` is the data root of the local copies, None the hub with the stock source; ``folder`` receives task files
    and answers. ``documents`` caps the documents, spread over the file and over a group's members. ``seed`` draws
    few-shot examples (lm-eval's own is 1234). ``max_length`` replaces the context length of the model's config.
    ``allow_code`` lets HumanEval run what the model writes. ``fewshot`` replaces the task's own number of examples,
    ``path`` the copy's place under the root, and ``subtasks`` selects members of a group.
    """

    task: str
    root: Path | None
    folder: Path
    documents: int | None = None
    batch_size: int = 64
    seed: int = 0
    max_length: int | None = None
    allow_code: bool = False
    fewshot: int | None = None
    path: str | None = None
    subtasks: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchmarkPlan:
    """What a benchmark would measure with, known without a model: the digest of the task's configuration with its
    prompts, the data, versions, and what is missing."""

    task: str
    config: str
    data: Mapping[str, Any]
    versions: Mapping[str, str]
    missing: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchmarkResult:
    """What a benchmark measured, by metric; none where something is ``missing``."""

    task: str
    measurements: Mapping[str, Measurement] = field(default_factory=dict)
    data: Mapping[str, Any]
    versions: Mapping[str, str]
    config: str
    missing: str | None = None


class _Run(Protocol):
    """One benchmark made ready: its configuration, its data, and the measuring itself."""

    def config(self) -> Mapping[str, Any]: ...

    def data(self) -> Mapping[str, Any]: ...

    def lacking(self) -> str | None: ...

    def measure(self, model: Any, tokenizer: Any) -> tuple[dict[str, Measurement], Mapping[str, Any]]: ...


def benchmark_names() -> tuple[str, ...]:
    """The names of all benchmarks, sorted."""
    return tuple(sorted((*STOCK, *SETS)))


def benchmark(name: str) -> StockTask | RefusalSet:
    """The entry of a benchmark; ``ConfigError`` with the nearest name where there is none."""
    known = ALIASES.get(name, name)
    found = STOCK.get(known) or SETS.get(known)
    if found is None:
        names = (*benchmark_names(), *ALIASES)
        near = did_you_mean(name, names)
        raise ConfigError(f"there is no benchmark '{name}':{near or f' known are {listing(names)}.'}")
    return found


def plan_benchmark(request: BenchmarkRequest) -> BenchmarkPlan:
    """What ``request`` would measure with, in milliseconds and without a model: the key of a cached result.

    ``ConfigError`` for an unknown benchmark, member, or few-shot examples that there are none of.
    """
    return _plan(request, _run(request))


def run_benchmark(model: Any, tokenizer: Any, request: BenchmarkRequest) -> BenchmarkResult:
    """Measure a model in memory; model, tokenizer and random streams are left as found.

    ``ConfigError`` as for ``plan_benchmark``; data that is not there makes the result ``missing``.
    """
    run = _run(request)
    plan = _plan(request, run)
    measured: dict[str, Measurement] = {}
    data, missing = plan.data, plan.missing
    if missing is None and not finite(model):
        missing = "the model has weights that are not finite numbers."
    if missing is None:
        try:
            with quiet(), undisturbed(model, tokenizer):
                measured, more = run.measure(model, tokenizer)
            data = {**data, **more}
        except DataError as reason:
            missing = str(reason)
    return BenchmarkResult(
        task=plan.task,
        measurements=measured,
        data=data,
        versions=plan.versions,
        config=plan.config,
        missing=missing,
    )


def _run(request: BenchmarkRequest) -> _Run:
    entry = benchmark(request.task)
    for name in ("documents", "batch_size", "max_length"):
        if (value := getattr(request, name)) is not None and value < 1:
            raise ConfigError(f"benchmark '{request.task}' was asked with {name} {value}: give at least 1.")
    if isinstance(entry, RefusalSet):
        from .refusal_sets import RefusalRun

        return RefusalRun(entry=entry, request=request)
    return StockRun(name=ALIASES.get(request.task, request.task), task=entry, request=request)


def _plan(request: BenchmarkRequest, run: _Run) -> BenchmarkPlan:
    described = json.dumps(run.config(), sort_keys=True, ensure_ascii=False)
    missing = run.lacking()
    data: Mapping[str, Any] = {}
    try:
        data = run.data()
    except DataError as reason:
        missing = missing or str(reason)
    return BenchmarkPlan(
        task=ALIASES.get(request.task, request.task),
        config=hashlib.sha256(described.encode()).hexdigest(),
        data=data,
        versions=_versions(("lm_eval", "transformers", "datasets", "torch")),
        missing=missing,
    )


def _versions(packages: Sequence[str]) -> dict[str, str]:
    return {name: version(name) for name in packages}
