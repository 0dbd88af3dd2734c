"""A worker of its own process: ``fake_worker.py FOLDER NAME [row to hang in]``; prints what it carries out."""

from __future__ import annotations

import sys
import time
from pathlib import Path

from phasegate.core.config.schema import ScoreSection, StudySection
from phasegate.core.study.choosing import choose
from phasegate.core.study.point import PointOutcome, PointRequest
from phasegate.core.study.samplers import pruner_of, sampler_of
from phasegate.core.study.search import run_study
from phasegate.core.study.space import Row, SearchSpace
from phasegate.core.study.storage import StudyFolder, open_study, study_definition
from phasegate.core.study.workers import Worker

ROWS = tuple(Row(name=f"row{number}", order=f"p{number}") for number in range(6))


def main(folder: str, name: str, hangs_in: str = "") -> None:
    said = Path(folder).parent / "carried.txt"

    def carry(request: PointRequest) -> PointOutcome:
        assert request.row is not None
        with said.open("a") as stream:
            stream.write(f"{name} {request.row.name} {request.seed}\n")
        if request.row.name == hangs_in and request.seed == 1:
            print("hanging", flush=True)
            time.sleep(600)
        return PointOutcome(
            scores={"quality": float(request.row.name.removeprefix("row")) + request.seed}, stages=(), capabilities={},
            verdicts={}, seconds=0.0, seconds_saved=0.0, trained=1, reused=0,
        )  # fmt: skip

    section = StudySection(scores={"quality": ScoreSection()}, seeds=(0, 1))
    space = SearchSpace(rows=ROWS, listed=True)
    choice = choose(section, space)
    at = StudyFolder(path=Path(folder))
    study = open_study(
        at, study_definition({"name": "x"}, section, space, choice, libraries={}), choice,
        sampler=sampler_of(choice, space), pruner=pruner_of(choice),
    )  # fmt: skip
    run_study(study, section, space, carry, worker=Worker(at))


if __name__ == "__main__":
    main(*sys.argv[1:])
