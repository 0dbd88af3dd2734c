"""A study's folder: what the study is, its journal, and the refusal to mix two studies in one."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...registry.atomic import read_json, reporting, write_json
from ...registry.errors import StoreError
from ..run.fingerprint import differences, digest, library_versions, to_plain
from ..run.lock import single_flight
from .choosing import Choice
from .space import SearchSpace

if TYPE_CHECKING:
    from optuna.pruners import BasePruner
    from optuna.samplers import BaseSampler
    from optuna.storages import BaseStorage
    from optuna.study import Study

    from ..config.schema import StudySection

FORMAT = 1
JOURNAL = "journal"
SHOWN = 20  # differences that are printed one by one

_NAME = re.compile(r"[A-Za-z0-9][\w.-]*")
# Of an experiment: what a study says for itself, and what changes no trained bit.
_ASIDE = ("hardware", "run", "study")
_DEFINITION = "definition"  # the attribute of Optuna's study that holds its digest


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyFolder:
    """``studies/<name>/``: ``study.json``, ``journal.log``, ``trials/`` (who works on what) and what comes of it."""

    path: Path

    @property
    def name(self) -> str:
        return self.path.name

    @property
    def study_file(self) -> Path:
        return self.path / "study.json"

    @property
    def journal(self) -> Path:
        return self.path / "journal.log"

    @property
    def results(self) -> Path:
        return self.path / "results.json"

    @property
    def trials(self) -> Path:
        return self.path / "trials"

    @property
    def lock(self) -> Path:
        return self.path / "study.lock"

    def begun(self) -> int:
        """How many trials have been begun here at least, as their lock files tell."""
        numbers = [int(path.stem) for path in self.trials.glob("*.lock") if path.stem.isdecimal()]
        return max(numbers, default=-1) + 1

    def record(self) -> dict[str, Any]:
        """What ``study.json`` says; StoreError where it is missing, unreadable or of another format."""
        if not self.study_file.is_file():
            raise StoreError(f"{self.path} is no study (it has no study.json); name a folder below studies/")
        record = read_json(self.study_file, "a study")
        if record.get("kind") != "study" or record.get("format") != FORMAT:
            raise StoreError(
                f"{self.study_file} is not a study of format {FORMAT}; use the version that wrote it, or another --name"
            )
        if record.get("name") != self.name:
            raise StoreError(
                f"{self.path} holds the study '{record.get('name')}': the folder was renamed or copied. Give it its "
                "name back, or start a study of another name (--name)"
            )
        return record


def study_definition(
    experiment: Any,
    section: StudySection,
    space: SearchSpace,
    choice: Choice,
    *,
    also: Mapping[str, Any] | None = None,
    libraries: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """All that makes two studies the same: the experiment, the space, the scores, the seeds, the sampler, and versions.

    ``experiment`` is complete (a dataclass or a mapping); ``also`` holds what it names and does not contain (digests of
    data). How many trials a study gets is left out, so that it can be given more.
    """
    whole = to_plain(experiment)
    mine = to_plain(section)
    return {
        "experiment": {key: value for key, value in whole.items() if key not in _ASIDE},
        "study": {key: value for key, value in mine.items() if key not in ("sampler", "trials")},
        "sampler": choice.sampler,
        "space": {row.name: to_plain(row) for row in space.rows},
        "parameters": {one.key: to_plain(one) for one in space.parameters},
        "objectives": list(choice.objectives),
        "versions": {"optuna": metadata.version("optuna"), **(library_versions() if libraries is None else libraries)},
        "also": to_plain(dict(also or {})),
    }


def open_study(
    folder: StudyFolder,
    definition: Mapping[str, Any],
    choice: Choice,
    *,
    sampler: BaseSampler,
    pruner: BasePruner,
    url: str | None = None,
    store: Path | None = None,
) -> Study:
    """The Optuna study in this folder, made if the folder has none.

    ``url`` is a storage of Optuna's (an SQL or Redis URL) instead of the folder's journal. StoreError, and nothing
    written, where the folder holds a study of another definition (the differences stand in the message), where its
    journal is missing, damaged or cut off, where the folder was renamed, and where ``store`` has none of the stages
    that finished trials left.
    """
    if not _NAME.fullmatch(folder.name):
        raise StoreError(f"the study name {folder.name!r} cannot name a folder; use letters, digits, '.', '_', '-'")
    with single_flight(folder.lock, f"the study {folder.name}"):
        if folder.study_file.exists():
            _check(folder, folder.record(), definition, shown(url))
        elif folder.begun():
            raise StoreError(
                f"{folder.path} has begun trials but no study.json; put it back from a copy, or start a study of "
                "another name (--name)"
            )
        study = _study(folder, definition, choice, sampler, pruner, url)
        trials = len(study.get_trials(deepcopy=False))
        if trials < folder.begun():
            raise StoreError(
                f"the storage of the study {folder.name} has {trials} trials, and {folder.begun()} were begun: it was "
                "cut off or replaced. Put it back from a copy, or start a study of another name (--name); stages that "
                "are trained are reused either way"
            )
        if store is not None:
            _check_store(folder, study, store)
        if not folder.study_file.exists():
            write_json(
                folder.study_file,
                {
                    "format": FORMAT,
                    "kind": "study",
                    "name": folder.name,
                    "created": datetime.now(UTC).isoformat(timespec="seconds"),
                    "storage": shown(url),
                    "store": None if store is None else str(store.resolve()),
                    "digest": digest(definition),
                    "definition": to_plain(definition),
                },
            )
    return study


def shown(url: str | None) -> str:
    """A storage as it is written down and printed: without the password."""
    if url is None:
        return JOURNAL
    return re.sub(r"(://[^:/@]*):[^@]*@", r"\1:***@", url)


def _check(folder: StudyFolder, record: Mapping[str, Any], definition: Mapping[str, Any], storage: str) -> None:
    if record["storage"] != storage:
        raise StoreError(
            f"the study {folder.name} keeps its trials in {record['storage']}, not in {storage}; "
            "open it with the storage that it was made with (--storage), or take another --name"
        )
    lines = differences(record["definition"], definition)
    if lines:
        rest = [f"  … and {len(lines) - SHOWN} more"] if len(lines) > SHOWN else []
        listed = "\n".join([*(f"  {line}" for line in lines[:SHOWN]), *rest])
        raise StoreError(
            f"the study {folder.name} was made for something else; these have changed since:\n{listed}\n"
            "Undo the change to go on with it, or start a study of another name (--name); stages that are the same are "
            "reused"
        )
    if storage == JOURNAL and not folder.journal.is_file():
        raise StoreError(
            f"{folder.path} has a study.json but no journal.log: its trials are gone. Put the file back from a copy "
            "or start a study of another name (--name); stages that are trained are reused either way"
        )


def _study(
    folder: StudyFolder,
    definition: Mapping[str, Any],
    choice: Choice,
    sampler: BaseSampler,
    pruner: BasePruner,
    url: str | None,
) -> Study:
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    storage = open_storage(folder, url)
    there = folder.name in optuna.get_all_study_names(storage)
    if folder.study_file.exists() and not there:
        raise StoreError(
            f"the storage {shown(url)} has no study '{folder.name}', which {folder.study_file} says it has: it was cut "
            "off or replaced. Put it back from a copy, or start a study of another name (--name)"
        )
    if there:  # `load_if_exists` would write to the journal before it looks
        study = optuna.load_study(storage=storage, study_name=folder.name, sampler=sampler, pruner=pruner)
    else:
        study = optuna.create_study(
            storage=storage,
            study_name=folder.name,
            directions=list(choice.directions),
            sampler=sampler,
            pruner=pruner,
            load_if_exists=True,
        )
    mine, theirs = digest(definition), study.user_attrs.get(_DEFINITION)
    if theirs is None:
        study.set_user_attr(_DEFINITION, mine)
        study.set_user_attr("objectives", list(choice.objectives))
    elif theirs != mine:
        raise StoreError(
            f"the storage {shown(url)} already has a study '{folder.name}' of another definition; take another --name"
        )
    return study


def open_storage(folder: StudyFolder, url: str | None) -> BaseStorage:
    """The folder's journal, or the storage at ``url``; StoreError where it cannot be opened."""
    if url is None:
        from .journal import journal_storage

        with reporting("the journal of the study", folder.path):
            return journal_storage(folder.journal)
    import optuna
    from sqlalchemy.exc import SQLAlchemyError

    try:
        # The storage itself is asked something, as some of them connect only then.
        storage = optuna.storages.get_storage(url)
        optuna.get_all_study_names(storage)
    except (SQLAlchemyError, ImportError, OSError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise StoreError(
            f"the storage {shown(url)} cannot be opened ({type(error).__name__}: {reason}); check the URL, that its "
            "server answers, and that its driver is installed"
        ) from error
    return storage


def read_study(folder: StudyFolder, url: str | None = None) -> Study:
    """The study in this folder for reading, whatever its definition; StoreError where there is none."""
    import optuna

    record = folder.record()
    if record["storage"] == JOURNAL and not folder.journal.is_file():
        raise StoreError(f"{folder.path} has a study.json but no journal.log; put the file back from a copy")
    if record["storage"] != JOURNAL and url is None:
        raise StoreError(f"the study {folder.name} keeps its trials in {record['storage']}; name it with --storage")
    try:
        return optuna.load_study(study_name=folder.name, storage=open_storage(folder, url))
    except KeyError as error:
        raise StoreError(f"the storage {shown(url)} has no study '{folder.name}'; put it back from a copy") from error


def _check_store(folder: StudyFolder, study: Study, store: Path) -> None:
    stages = _stages(study.get_trials(deepcopy=False))
    if stages and not any((store / name).is_dir() for name in stages):
        recorded = folder.record().get("store") if folder.study_file.exists() else None
        made = f"; it was made with {recorded}" if recorded else ""
        raise StoreError(
            f"the store {store} has none of the {len(stages)} stages of the study {folder.name} (such as {stages[0]})"
            f"{made}. Name the store where it is now (--store), or take another --name to train them again"
        )


def _stages(trials: Iterable[Any]) -> Sequence[str]:
    from .outcomes import outcomes_of

    return sorted({stage for trial in trials for one in outcomes_of(trial).values() for stage in one.outcome.stages})
