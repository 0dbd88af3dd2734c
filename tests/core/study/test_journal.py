"""A journal whose writer is killed in the middle of a line."""

from __future__ import annotations

import json
from pathlib import Path

import optuna
import pytest
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from phasegate.core.study.journal import check_journal, journal_storage
from phasegate.registry.errors import StoreError

TORN = b'{"op_code":4,"worker_id":"x","study'


@pytest.fixture
def journal(tmp_path: Path) -> Path:
    """A journal of one finished trial, whose writer was killed while it wrote the next line."""
    path = tmp_path / "journal.log"
    study = optuna.create_study(storage=journal_storage(path), study_name="s")
    study.tell(study.ask(), 1.0)
    with path.open("ab") as stream:
        stream.write(TORN)
    return path


def add_two(storage: JournalStorage) -> None:
    study = optuna.load_study(study_name="s", storage=storage)
    for value in (2.0, 3.0):
        study.tell(study.ask(), value)


def test_what_was_written_before_a_torn_line_is_read_and_what_comes_after_it_is_kept(journal: Path) -> None:
    add_two(journal_storage(journal))
    again = optuna.load_study(study_name="s", storage=journal_storage(journal))
    assert [trial.value for trial in again.trials] == [1.0, 2.0, 3.0]
    assert TORN not in journal.read_bytes()


def test_one_who_has_the_journal_open_goes_on_after_another_has_torn_it(journal: Path) -> None:
    mine = optuna.load_study(study_name="s", storage=journal_storage(journal))
    add_two(journal_storage(journal))
    with journal.open("ab") as stream:
        stream.write(TORN)
    mine.tell(mine.ask(), 4.0)
    assert [trial.value for trial in mine.trials] == [1.0, 2.0, 3.0, 4.0]


def test_the_library_s_own_journal_would_not_survive_it(journal: Path) -> None:
    """The reason for a journal of our own; when this fails, Optuna has learnt it."""
    with pytest.raises((AttributeError, json.JSONDecodeError)):
        add_two(JournalStorage(JournalFileBackend(str(journal))))


def test_a_torn_line_longer_than_a_block_is_cut_off_whole(journal: Path) -> None:
    with journal.open("ab") as stream:
        stream.write(b"x" * 200_000)
    add_two(journal_storage(journal))
    assert all(json.loads(line) for line in journal.read_text().splitlines())


def test_a_lock_of_the_library_s_that_a_dead_process_left_stops_nobody(journal: Path) -> None:
    # Optuna's own lock is a link that stays; everybody would wait 30 seconds for it.
    lock = journal.with_name("journal.log.lock")
    lock.symlink_to(journal)
    add_two(journal_storage(journal))
    again = optuna.load_study(study_name="s", storage=journal_storage(journal))
    assert [trial.value for trial in again.trials] == [1.0, 2.0, 3.0]
    assert lock.is_symlink()  # it is not ours to remove


def test_a_damaged_line_is_named_and_nothing_is_written(journal: Path) -> None:
    lines = journal.read_bytes().splitlines(keepends=True)
    damaged = b"".join([lines[0], b"\x00\x00\n", *lines[1:]])
    journal.write_bytes(damaged)
    with pytest.raises(StoreError, match=r"line 2 of .*journal\.log is no record.*--name"):
        journal_storage(journal)
    assert journal.read_bytes() == damaged


def test_a_journal_that_is_not_there_yet_is_fine(tmp_path: Path) -> None:
    check_journal(tmp_path / "journal.log")
    assert not list(tmp_path.iterdir())
