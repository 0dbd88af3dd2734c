"""Studies without training: a carry that looks a score up, and a study folder opened as the command opens it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from optuna.study import Study
from phasegate.core.config.schema import ScoreSection, StudySection
from phasegate.core.study.choosing import choose
from phasegate.core.study.news import TrialNews
from phasegate.core.study.point import PointOutcome, PointRequest, StageFacts
from phasegate.core.study.samplers import pruner_of, sampler_of
from phasegate.core.study.search import run_study
from phasegate.core.study.space import Row, SearchSpace
from phasegate.core.study.storage import StudyFolder, open_study, study_definition
from phasegate.core.study.workers import Worker


@dataclass
class FakeCarry:
    """Scores a point by ``score(request)``, reports its phases with ``margins(phase, request)``, and counts."""

    score: Callable[[PointRequest], Mapping[str, float | None]]
    margins: Callable[[str, PointRequest], Mapping[str, float]] = lambda phase, request: {}
    before: Callable[[str, PointRequest], None] = lambda phase, request: None
    done: list[tuple[str, Mapping[str, Any], int]] = field(default_factory=list)

    def __call__(self, request: PointRequest) -> PointOutcome:
        phases = request.row.phases if request.row is not None else ("a", "b", "c")
        for number, phase in enumerate(phases):
            self.before(phase, request)
            request.on_stage(
                StageFacts(
                    phase=phase, number=number, stage=f"{phase}-{request.seed}", reused=False, seconds=0.0,
                    verdict="pass", margins=self.margins(phase, request),
                )
            )  # fmt: skip
        self.done.append((request.row.name if request.row else "", dict(request.parameters), request.seed))
        return PointOutcome(
            scores=self.score(request), stages=tuple(f"{phase}-{request.seed}" for phase in phases), capabilities={},
            verdicts={"pass": len(phases)}, seconds=0.0, seconds_saved=0.0, trained=len(phases), reused=0,
        )  # fmt: skip


@dataclass
class Bench:
    """A study folder and what it takes to open it and run in it, again and again."""

    path: Path

    def section(self, **said: Any) -> StudySection:
        scores = said.pop("scores", {"quality": ScoreSection()})
        return StudySection(**{"scores": scores, "seeds": (0, 1, 2), **said})

    def open(self, section: StudySection, space: SearchSpace, experiment: Any = None, **more: Any) -> Study:
        choice = choose(section, space)
        return open_study(
            StudyFolder(path=self.path),
            study_definition(experiment or {"name": "x"}, section, space, choice, libraries={}),
            choice,
            sampler=sampler_of(choice, space),
            pruner=pruner_of(choice),
            **more,
        )

    def run(
        self,
        section: StudySection,
        space: SearchSpace,
        carry: Callable[[PointRequest], PointOutcome],
        stop: Callable[[], None] = lambda: None,
        show: Callable[[TrialNews], None] = lambda news: None,
    ) -> Study:
        study = self.open(section, space)
        run_study(study, section, space, carry, worker=Worker(StudyFolder(path=self.path)), stop=stop, show=show)
        return study


def rows_of(orders: Sequence[str]) -> tuple[Row, ...]:
    return tuple(Row(name=order, order=order) for order in orders)


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path / "studies" / "nano")


@pytest.fixture
def fake() -> type[FakeCarry]:
    return FakeCarry


@pytest.fixture
def rows() -> Callable[[Sequence[str]], tuple[Row, ...]]:
    return rows_of
