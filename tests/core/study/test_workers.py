"""Several workers on one study, some of which die."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from optuna.trial import TrialState
from phasegate.core.study.parameters import distributions
from phasegate.core.study.space import Row, SearchSpace
from phasegate.core.study.storage import StudyFolder, read_study
from phasegate.core.study.workers import SEEN, WORKER, Worker, give_back

SPACE = SearchSpace(rows=(Row(name="one", order="a>b"), Row(name="two", order="b>a")), listed=True)
SCRIPT = Path(__file__).with_name("fake_worker.py")


def start(folder: Path, *words: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, str(SCRIPT), str(folder), *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def test_two_workers_share_a_study_and_the_trial_of_one_that_is_killed_is_done_by_the_other(tmp_path: Path) -> None:
    folder = tmp_path / "studies" / "nano"
    folder.parent.mkdir()
    first = start(folder, "first", "row0")
    assert first.stdout is not None
    assert first.stdout.readline() == "hanging\n"
    second = start(folder, "second")
    carried = folder.parent / "carried.txt"
    while "second" not in carried.read_text():  # it is at work while the other lives
        assert second.poll() is None, second.communicate()[1]
    first.send_signal(signal.SIGKILL)
    first.communicate()
    _, errors = second.communicate(timeout=60)
    assert second.returncode == 0, errors

    study = read_study(StudyFolder(path=folder))
    complete = [trial for trial in study.trials if trial.state == TrialState.COMPLETE]
    # The mean over seeds 0 and 1 of row + seed.
    assert sorted((trial.user_attrs["row"], trial.value) for trial in complete) == [
        (f"row{number}", number + 0.5) for number in range(6)
    ]
    assert [trial.number for trial in study.trials if trial.state != TrialState.COMPLETE] == [0]
    assert study.trials[0].state == TrialState.FAIL
    # Once each, but for the seed in which the first was killed; the seed that it had finished was not repeated.
    done = Counter(line.split(" ", 1)[1] for line in carried.read_text().splitlines())
    assert {point: count for point, count in done.items() if count != 1} == {"row0 1": 2}
    assert len(done) == 12


@pytest.fixture
def dead(bench: Any) -> Any:
    """A study in which trial 0 was taken by a worker that is gone, and left an attribute."""
    study = bench.open(bench.section(), SPACE)
    study.enqueue_trial({"order": "a>b"})
    worker = Worker(StudyFolder(path=bench.path))
    trial = study.ask(distributions(SPACE))
    hold = worker.take(trial)
    trial.set_user_attr("seed:0", {"kept": True})
    with hold:
        assert worker.bury(study) == []  # it is held
    return study


def test_a_dead_worker_s_trial_is_buried_once_and_queued_with_what_it_had(dead: Any, bench: Any) -> None:
    worker = Worker(StudyFolder(path=bench.path))
    assert worker.bury(dead) == [0]
    assert worker.bury(dead) == []
    assert [trial.state.name for trial in dead.trials] == ["FAIL", "WAITING"]
    assert dead.trials[1].user_attrs["seed:0"] == {"kept": True}
    assert dead.trials[1].user_attrs["retry_of"] == 0
    assert dead.ask(distributions(SPACE)).params == {"order": "a>b"}


def test_a_worker_killed_while_it_buries_another_leaves_no_second_copy(dead: Any, bench: Any) -> None:
    # Queued again, and killed before the old trial was failed.
    dead.enqueue_trial({"order": "a>b"}, user_attrs={"retry_of": 0})
    assert Worker(StudyFolder(path=bench.path)).bury(dead) == [0]
    assert [trial.state.name for trial in dead.trials] == ["FAIL", "WAITING"]


def test_a_worker_killed_between_taking_a_trial_and_saying_so_is_dead_too(bench: Any) -> None:
    study = bench.open(bench.section(), SPACE)
    study.ask(distributions(SPACE))
    assert Worker(StudyFolder(path=bench.path)).bury(study) == [0]


def test_a_queued_point_is_not_lost_when_its_worker_dies_before_it_drew_anything(bench: Any, fake: Any) -> None:
    section = bench.section(trials=1)
    bench.run(section, SPACE, fake(score=lambda request: {"quality": 1.0}))
    study = bench.open(section, SPACE)
    trial = study.ask()  # takes the queued second row, and dies
    assert trial.params == {}
    carry = fake(score=lambda request: {"quality": 2.0})
    study = bench.run(bench.section(trials=2), SPACE, carry)
    assert [one.user_attrs["row"] for one in study.trials if one.state == TrialState.COMPLETE] == ["one", "two"]


def test_the_trial_of_another_host_is_left_alone_in_a_folder_and_judged_by_its_time_on_a_server(bench: Any) -> None:
    study = bench.open(bench.section(), SPACE)
    trial = study.ask(distributions(SPACE))
    trial.set_user_attr(WORKER, {"host": "elsewhere", "process": 1})
    folder = StudyFolder(path=bench.path)
    assert Worker(folder).bury(study) == []
    trial.set_user_attr(SEEN, time.time() - 500)
    assert Worker(folder, remote=True).bury(study) == []
    trial.set_user_attr(SEEN, time.time() - 700)
    assert Worker(folder, remote=True).bury(study) == [0]


def test_a_worker_of_another_folder_on_a_server_s_storage_is_seen_to_live(bench: Any, tmp_path: Path) -> None:
    study = bench.open(bench.section(), SPACE, url=f"sqlite:///{tmp_path / 'trials.db'}")
    mine, theirs = (Worker(StudyFolder(path=tmp_path / name / "nano"), remote=True) for name in ("mine", "theirs"))
    with theirs.take(study.ask(distributions(SPACE))) as hold:
        assert mine.bury(study) == []
        hold.still()
    assert mine.bury(study) == [0]


def test_a_worker_on_a_server_s_storage_writes_the_time_down_until_its_trial_ends(bench: Any) -> None:
    study = bench.open(bench.section(), SPACE)
    trial = study.ask(distributions(SPACE))
    with Worker(StudyFolder(path=bench.path), remote=True, beat=0.01).take(trial) as hold:
        first = None
        while first is None or study.trials[0].user_attrs[SEEN] == first:
            first = first or study.trials[0].user_attrs.get(SEEN)
        hold.still()
        study.tell(trial, 1.0)
    assert study.trials[0].user_attrs[SEEN] > first


def test_a_trial_given_back_without_a_point_is_only_failed(bench: Any) -> None:
    study = bench.open(bench.section(), SPACE)
    study.ask()
    give_back(study, study.trials[0])
    assert [trial.state.name for trial in study.trials] == ["FAIL"]
