"""Measuring benchmarks on a model: what the store already has is taken from there, the rest is measured and kept."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from ...evals.benchmarks import (
    BenchmarkPlan,
    BenchmarkRequest,
    benchmark,
    benchmark_names,
    plan_benchmark,
    run_benchmark,
)
from ...registry.errors import ConfigError, DataError
from ...registry.suggest import listing
from .benchmarks import BenchmarkRecord, key_of, now, read_record, renamed, write_record
from .store import Store
from .targets import Target, saved_dtype

if TYPE_CHECKING:
    from ...registry.registry import Registry

ALL = "all"
ASKED = ("batch_size", "documents", "dtype", "max_length", "seed")  # settings that decide the numbers


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How benchmarks are measured.

    ``root`` is the data folder (None: the hub), ``documents`` caps the documents of each task, ``dtype`` may be
    ``auto`` (as the model was saved), ``fresh`` measures again what the store has.
    """

    root: Path | None
    documents: int | None = None
    batch_size: int = 64
    dtype: str = "auto"
    seed: int = 0
    max_length: int | None = None
    allow_code: bool = False
    fresh: bool = False

    def request(self, task: str, folder: Path) -> BenchmarkRequest:
        """One task under these settings, with its files in ``folder``."""
        return BenchmarkRequest(
            task=task,
            root=self.root,
            folder=folder,
            documents=self.documents,
            batch_size=self.batch_size,
            seed=self.seed,
            max_length=self.max_length,
            allow_code=self.allow_code,
        )


def find_tasks(text: str, settings: Settings) -> tuple[str, ...]:
    """The benchmarks in a comma list, each once; ``all``: those whose data is there.

    ``ConfigError`` for an unknown one, with the nearest name; ``DataError`` where ``all`` finds none.
    """
    names = tuple(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))
    if not names:
        raise ConfigError(f"--tasks names no benchmark; known are {listing(benchmark_names())}.")
    if names != (ALL,):
        for name in names:
            benchmark(name)
        return names
    found = tuple(name for name in benchmark_names() if _plan(name, settings).data)
    if not found:
        raise DataError(
            f"no benchmark has its data below {settings.root or 'the hub'}; name the folder that holds evals/ with "
            "--data-dir, or name one benchmark to be told what it needs."
        )
    return found


def measure(
    target: Target,
    tasks: Sequence[str],
    settings: Settings,
    store: Store,
    registry: Callable[[], Registry],
    told: Callable[[str], None] = lambda _: None,
) -> list[BenchmarkRecord]:
    """A record per task, in the order of ``tasks``; the model is loaded only for what the store has not.

    A task whose data is not there gives a record with ``missing``, which is not kept. ``StoreError`` where the store
    holds a damaged result, which stays as it is.
    """
    dtype = saved_dtype(target.folder) if settings.dtype == "auto" else settings.dtype
    model = _Model(target=target, registry=registry, dtype=dtype)
    records = []
    for task in tasks:
        plan = _plan(task, settings)
        draft = _draft(target, plan, settings, dtype)
        if plan.missing is not None:
            records.append(draft)
            continue
        known = read_record(store, draft.key) if _is_known(plan) and not settings.fresh else None
        if known is not None:
            told(f"{target.name}: {task} from the cache")
            records.append(renamed(known, target.name))
            continue
        told(f"{target.name}: {task} …")
        record = _run(draft, plan, settings, *model.get())
        if record.missing is None:
            write_record(store, record)
        records.append(record)
    return records


@dataclass(slots=True, kw_only=True)
class _Model:
    """A model that is loaded when it is first needed, with its tokenizer."""

    target: Target
    registry: Callable[[], Registry]
    dtype: str
    _pair: tuple[Any, Any] | None = field(default=None, init=False)

    def get(self) -> tuple[Any, Any]:
        import torch

        if self._pair is None:
            model, tokenizer = self.target.load(self.registry(), self.dtype)
            self._pair = (model.to(torch.device(_device())).eval(), tokenizer)
        return self._pair


def _device() -> str:
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def _plan(task: str, settings: Settings) -> BenchmarkPlan:
    with TemporaryDirectory() as folder:
        return plan_benchmark(settings.request(task, Path(folder)))


def _is_known(plan: BenchmarkPlan) -> bool:
    """Whether the data is known before it is loaded; what the hub has now only loading tells."""
    return "sha256" in plan.data


def _draft(target: Target, plan: BenchmarkPlan, settings: Settings, dtype: str) -> BenchmarkRecord:
    """The record without its measurements, under the key of all that decides them."""
    asked = {name: getattr(settings, name) for name in ASKED} | {"dtype": dtype}
    versions = {**plan.versions, "device": _device()}
    return BenchmarkRecord(
        key=_key(target.digest, plan, plan.data, versions, asked),
        task=plan.task,
        model={"name": target.name, "digest": target.digest},
        config=plan.config,
        data=plan.data,
        versions=versions,
        created=now(),
        missing=plan.missing,
        **asked,
    )


def _key(
    model: str,
    plan: BenchmarkPlan,
    data: Mapping[str, Any],
    versions: Mapping[str, str],
    asked: Mapping[str, Any],
) -> str:
    told = {"task": plan.task, "config": plan.config, "data": dict(data), "versions": dict(versions)}
    return key_of({"model": model, **told, **asked})


def _run(
    draft: BenchmarkRecord, plan: BenchmarkPlan, settings: Settings, model: Any, tokenizer: Any
) -> BenchmarkRecord:
    with TemporaryDirectory() as folder:
        found = run_benchmark(model, tokenizer, settings.request(draft.task, Path(folder)))
    record = replace(draft, data=found.data, missing=found.missing, measurements=found.measurements)
    if _is_known(plan) or record.missing is not None:
        return record
    asked = {name: getattr(draft, name) for name in ASKED}
    data = {**plan.data, "sha256": found.data["sha256"]}
    return replace(record, key=_key(draft.model["digest"], plan, data, draft.versions, asked))
