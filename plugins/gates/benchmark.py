"""Stock lm-eval benchmarks on local copies of their data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from ...evals.bridge import Sample, evaluate_folder
from ...evals.context import MeasureContext
from ...evals.measurement import Measurement
from ...evals.stock import stock_task, write_stock
from ...evals.summary import mean_over_groups, summarise
from .measuring import check_finite, context_length, or_missing


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchmarkConfig:
    """Which stock task; ``path`` replaces the place of its local copy under the data root, ``subtasks`` selects
    members of a group."""

    task: str = "blimp"
    path: str | None = None
    subtasks: tuple[str, ...] = ()


class BenchmarkGate:
    """A stock lm-eval task, prompts and metrics untouched, on a local copy of its data.

    Metrics: the task's own, for BLiMP (Warstadt et al. 2020, 1912.00582) ``acc`` (mean over paradigms, as
    published; chance 0.5) and ``acc/<paradigm>``. All documents unless the criterion says how many, which are then
    spread evenly over the members. Texts longer than the trained length are scored whole: lm-eval would cut their
    beginning off, or stop.
    """

    def __init__(self, config: BenchmarkConfig | None = None) -> None:
        self.config = config or BenchmarkConfig()
        self.task = stock_task(self.config.task)

    def measure(self, ctx: MeasureContext) -> Mapping[str, Measurement]:
        return or_missing(self.task.metrics, lambda: self._measure(ctx))

    def _measure(self, ctx: MeasureContext) -> Mapping[str, Measurement]:
        check_finite(ctx)
        path = ctx.root / (self.config.path or self.task.file)
        pack = write_stock(ctx.folder, self.config.task, path, self.config.subtasks, ctx.documents)
        found = evaluate_folder(
            ctx.model,
            ctx.tokenizer,
            pack.folder,
            sorted(pack.tasks.values()),
            batch_size=ctx.batch_size,
            seed=ctx.seed,
            max_length=max(context_length(ctx), pack.longest),
        )
        measured: dict[str, Measurement] = {}
        chance = self.task.chance
        for metric in self.task.metrics:
            parts = [
                _part(f"{metric}/{subtask}", metric, found.samples[task], chance)
                for subtask, task in pack.tasks.items()
            ]
            measured[metric] = mean_over_groups(metric, parts, pack.evidence)
            measured |= {part.metric: part for part in parts}
        return measured


def _part(name: str, metric: str, samples: Sequence[Sample], chance: float | None) -> Measurement:
    whole = summarise(samples, {metric: "proportion"})[metric]
    return replace(whole, metric=name, chance=chance)
