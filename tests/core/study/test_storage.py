"""A study's folder: opened again as it was made, and refused where it is another study or not whole."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import optuna
import pytest
from optuna.trial import create_trial
from phasegate.core.study.space import Row, SearchSpace
from phasegate.core.study.storage import StudyFolder, read_study, shown
from phasegate.registry.errors import StoreError

SPACE = SearchSpace(rows=(Row(name="one", order="a>b"), Row(name="two", order="b>a")), listed=True)
EXPERIMENT = {"name": "x", "phases": {"a": {"steps": 3}}, "run": {"threads": 1}, "study": {"seeds": [0]}}


def files(bench: Any) -> dict[str, bytes]:
    return {
        path.relative_to(bench.path).as_posix(): path.read_bytes()
        for path in bench.path.rglob("*")
        if path.is_file() and path.suffix not in (".lock", ".writing")
    }


@pytest.fixture
def done(bench: Any, fake: Any) -> Any:
    """The folder of a study whose two rows are done."""
    bench.run(bench.section(), SPACE, fake(score=lambda request: {"quality": 1.0}))
    return bench


def test_a_study_is_opened_again_with_its_trials(done: Any) -> None:
    assert len(done.open(done.section(), SPACE).trials) == 2
    assert StudyFolder(path=done.path).record()["definition"]["space"]["one"]["order"] == "a>b"


def test_more_trials_and_another_run_section_are_the_same_study(bench: Any) -> None:
    first = bench.open(bench.section(trials=1), SPACE, EXPERIMENT)
    first.add_trial(create_trial(value=1.0))
    written = StudyFolder(path=bench.path).record()
    again = bench.open(bench.section(trials=2), SPACE, {**EXPERIMENT, "run": {"threads": 2}})
    assert [trial.value for trial in again.trials] == [1.0]
    assert StudyFolder(path=bench.path).record() == written


def test_a_study_whose_experiment_changed_is_refused_line_by_line(bench: Any) -> None:
    bench.open(bench.section(), SPACE, EXPERIMENT)
    before = files(bench)
    with pytest.raises(StoreError) as refused:
        bench.open(bench.section(seeds=(0, 1, 3)), SPACE, {**EXPERIMENT, "phases": {"a": {"steps": 4}}})
    text = str(refused.value)
    assert "  experiment.phases.a.steps: 3 -> 4\n" in text and "  study.seeds[2]: 2 -> 3\n" in text
    assert "(--name)" in text
    assert files(bench) == before


def test_a_study_of_another_space_is_refused(bench: Any) -> None:
    bench.open(bench.section(), SPACE)
    with pytest.raises(StoreError, match=r'space\.two\.order: "b>a" -> "\(absent\)"|space\.two: '):
        bench.open(bench.section(), replace(SPACE, rows=SPACE.rows[:1]))


def remove_journal(bench: Any) -> None:
    (bench.path / "journal.log").unlink()


def empty_journal(bench: Any) -> None:
    (bench.path / "journal.log").write_bytes(b"")


def shorten_journal(bench: Any) -> None:
    # Up to and with the line that makes the second trial running is lost.
    path = bench.path / "journal.log"
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:4]))


def remove_definition(bench: Any) -> None:
    (bench.path / "study.json").unlink()


def damage_definition(bench: Any) -> None:
    (bench.path / "study.json").write_text("{")


@pytest.mark.parametrize(
    ("harm", "words"),
    [
        (remove_journal, "no journal.log: its trials are gone"),
        (empty_journal, "has no study 'nano'.*cut off or replaced"),
        (shorten_journal, r"has \d trials, and 2 were begun: it was cut off"),
        (remove_definition, "has begun trials but no study.json"),
        (damage_definition, "study.json is not the JSON of a study"),
    ],
)
def test_a_folder_that_is_not_whole_is_refused_and_left_as_it_is(
    done: Any, harm: Callable[[Any], None], words: str
) -> None:
    harm(done)
    before = files(done)
    with pytest.raises(StoreError, match=words):
        done.open(done.section(), SPACE)
    assert files(done) == before


def test_a_renamed_folder_says_whose_it_is(done: Any) -> None:
    moved = done.path.with_name("other")
    done.path.rename(moved)
    done.path = moved
    with pytest.raises(StoreError, match="holds the study 'nano': the folder was renamed or copied"):
        done.open(done.section(), SPACE)


def test_studies_may_be_moved_with_all_their_folders(done: Any) -> None:
    moved = done.path.parent.with_name("elsewhere")
    shutil.move(done.path.parent, moved)
    done.path = moved / "nano"
    assert len(done.open(done.section(), SPACE).trials) == 2


def test_a_store_without_the_stages_of_the_study_is_refused(done: Any) -> None:
    store = done.path.parent / "store"
    with pytest.raises(StoreError, match=r"has none of the 6 stages of the study nano \(such as a-0\).*--store"):
        done.open(done.section(), SPACE, store=store)
    (store / "a-0").mkdir(parents=True)
    assert len(done.open(done.section(), SPACE, store=store).trials) == 2


def test_a_name_that_is_no_folder_is_refused(bench: Any) -> None:
    bench.path = bench.path.with_name("..hidden")
    with pytest.raises(StoreError, match="cannot name a folder"):
        bench.open(bench.section(), SPACE)


def test_a_folder_without_a_study_is_none(bench: Any) -> None:
    with pytest.raises(StoreError, match=r"is no study \(it has no study.json\)"):
        read_study(StudyFolder(path=bench.path))


def test_a_study_is_read_without_its_definition(done: Any) -> None:
    assert [trial.value for trial in read_study(StudyFolder(path=done.path)).trials] == [1.0, 1.0]


def test_trials_may_be_kept_in_a_database(bench: Any, fake: Any) -> None:
    url = f"sqlite:///{bench.path.parent.parent / 'trials.db'}"
    bench.open(bench.section(), SPACE, url=url)
    assert json.loads((bench.path / "study.json").read_text())["storage"] == url
    assert not (bench.path / "journal.log").exists()
    assert len(bench.open(bench.section(), SPACE, url=url).trials) == 0
    with pytest.raises(StoreError, match=r"keeps its trials in sqlite.*, not in journal"):
        bench.open(bench.section(), SPACE)
    with pytest.raises(StoreError, match=r"keeps its trials in sqlite.*name it with --storage"):
        read_study(StudyFolder(path=bench.path))


def test_another_study_of_the_same_name_in_a_database_is_refused(bench: Any) -> None:
    url = f"sqlite:///{bench.path.parent.parent / 'trials.db'}"
    bench.open(bench.section(), SPACE, url=url)
    bench.path = bench.path.parent.parent / "other host" / "nano"
    with pytest.raises(StoreError, match="already has a study 'nano' of another definition"):
        bench.open(bench.section(seeds=(5,)), SPACE, url=url)


@pytest.mark.parametrize("url", ["nonsense", "postgresql://user:secret@127.0.0.1:1/none", "sqlite:////no/such/x.db"])
def test_a_storage_that_cannot_be_opened_is_named_without_its_password(bench: Any, url: str) -> None:
    with pytest.raises(StoreError, match="cannot be opened") as refused:
        bench.open(bench.section(), SPACE, url=url)
    assert "secret" not in str(refused.value)
    assert not (bench.path / "study.json").exists()


def test_passwords_are_not_shown() -> None:
    assert shown("mysql://me:pa:ss@host/db") == "mysql://me:***@host/db"
    assert shown("sqlite:///a:b@c.db") == "sqlite:///a:b@c.db"
    assert shown(None) == "journal"


def test_the_dashboard_opens_the_journal(done: Any) -> None:
    dashboard = pytest.importorskip("optuna_dashboard", reason="needs the optional dependency 'dashboard'")
    from wsgiref.util import setup_testing_defaults

    storage = optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(str(done.path / "journal.log")))
    environ: dict[str, Any] = {}
    setup_testing_defaults(environ)
    environ.update(PATH_INFO="/api/studies", REQUEST_METHOD="GET")
    status: list[str] = []
    body = b"".join(dashboard.wsgi(storage)(environ, lambda code, headers, *_: status.append(code)))
    assert status == ["200 OK"]
    studies = json.loads(body)["study_summaries"]
    assert [study["study_name"] for study in studies] == ["nano"]
