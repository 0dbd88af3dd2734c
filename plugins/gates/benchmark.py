"""Benchmarks as gates: stock lm-eval tasks on local copies of their data, and refusal sets."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ...evals.benchmarks import BenchmarkRequest, benchmark, run_benchmark
from ...evals.context import MeasureContext
from ...evals.measurement import Measurement, missing
from .measuring import context_length


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchmarkConfig:
    """Which benchmark: ``task``, by its name in ``platform eval``.

    ``path`` replaces the place of its local copy under the data root, ``subtasks`` selects members of a group,
    ``fewshot`` replaces the task's own number of examples.
    """

    task: str = "blimp"
    path: str | None = None
    subtasks: tuple[str, ...] = ()
    fewshot: int | None = None


class BenchmarkGate:
    """A benchmark of ``evals/benchmarks.py`` on a local copy of its data; prompts and metrics of stock tasks untouched.

    Metrics: the task's own under lm-eval's names, for groups also by member. For BLiMP (Warstadt et al. 2020,
    1912.00582) ``acc`` (mean over paradigms, as published; chance 0.5) and ``acc/<paradigm>``. All documents unless
    the criterion says how many, which are then spread over the members. Texts longer than the trained length are
    scored whole: lm-eval would cut their beginning off, or stop. Code that a model writes is never run by a gate.
    """

    def __init__(self, config: BenchmarkConfig | None = None) -> None:
        self.config = config or BenchmarkConfig()
        self.metrics = tuple(benchmark(self.config.task).metrics)

    def measure(self, ctx: MeasureContext) -> Mapping[str, Measurement]:
        found = run_benchmark(
            ctx.model,
            ctx.tokenizer,
            BenchmarkRequest(
                task=self.config.task,
                root=ctx.root,
                folder=ctx.folder,
                documents=ctx.documents,
                batch_size=ctx.batch_size,
                seed=ctx.seed,
                max_length=context_length(ctx),
                path=self.config.path,
                subtasks=self.config.subtasks,
                fewshot=self.config.fewshot,
            ),
        )
        if found.missing is not None:
            return {name: missing(name, found.missing) for name in self.metrics}
        return found.measurements
