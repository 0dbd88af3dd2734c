"""Several workers on one study: who works on which trial, and what happens to the trial of one that died."""

from __future__ import annotations

import json
import os
import socket
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock, Timeout

from ...registry.atomic import reporting
from ..run.lock import single_flight
from .parameters import point_key
from .storage import StudyFolder

if TYPE_CHECKING:
    from optuna.study import Study
    from optuna.trial import FrozenTrial, Trial

POINT = "point"  # attribute: what a queued trial is to draw, as JSON
RETRY_OF = "retry_of"  # attribute: the trial that this one is instead of
REASON = "reason"  # attribute: why a trial has no value; a failed trial without one was broken off
WORKER = "worker"
SEEN = "seen"

_PATIENCE = 0.5  # seconds between two looks at ``stop``


def was_broken_off(trial: FrozenTrial) -> bool:
    """Whether a trial failed because its worker died or was stopped, so that it says nothing of its point."""
    return trial.state.name == "FAIL" and REASON not in trial.user_attrs


class Worker:
    """One process at work on a study.

    Trials are taken one worker at a time (``asking``), and every trial that is being carried out is covered by a lock
    of the system's in the study's folder, which is free the moment its process is gone. With a storage on a server
    (``remote``) other hosts cannot see that lock: there the time is written down every ``beat`` seconds, and a trial of
    another host counts as dead after ``grace`` seconds without. (Optuna's own heartbeats reach ``optimize`` only.)
    """

    def __init__(self, folder: StudyFolder, *, remote: bool = False, beat: float = 60.0, grace: float = 600.0) -> None:
        self.folder, self.remote = folder, remote
        self._beat, self._grace = beat, grace
        self._host = socket.gethostname()

    def asking(self, stop: Callable[[], None]) -> AbstractContextManager[None]:
        """Within the body no other worker of this folder takes a trial or looks for dead ones."""
        return single_flight(self.folder.path / "asking.lock", f"the study {self.folder.name}", stop=stop)

    def take(self, trial: Trial) -> Hold:
        """Take a trial that was just asked for; to be called while ``asking``."""
        with reporting("the lock of a trial", self.folder.trials):
            self.folder.trials.mkdir(parents=True, exist_ok=True)
            path = self._path(trial.number)
            lock = FileLock(path)
            lock.acquire(timeout=0)
        trial.set_user_attr(WORKER, {"host": self._host, "process": os.getpid(), "lock": str(path.resolve())})
        return Hold(lock, trial, self._beat if self.remote else None)

    def bury(self, study: Study) -> list[int]:
        """Fail every trial whose worker died and queue its point again, with what it had found; to be called while
        ``asking``. Returns their numbers."""
        from optuna.trial import TrialState

        dead = [
            trial for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)) if self._is_dead(trial)
        ]
        for trial in dead:
            give_back(study, trial)
        return [trial.number for trial in dead]

    def wait_for_another(self, study: Study, stop: Callable[[], None]) -> bool:
        """Wait until one of the other workers of this folder has finished a trial or died; False if none is at work."""
        from optuna.trial import TrialState

        for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            if self._owner(trial).get("host") == self._host and not self._is_free(trial):
                while not self._is_free(trial, _PATIENCE):
                    stop()
                return True
        return False

    def _is_dead(self, trial: FrozenTrial) -> bool:
        host = self._owner(trial).get("host")
        if host == self._host or (host is None and not self.remote):
            # Without an owner it died between taking the trial and saying so: nobody else is asking now.
            return self._is_free(trial)
        if not self.remote:
            return False
        began = trial.datetime_start.timestamp() if trial.datetime_start else 0.0
        return time.time() - float(trial.user_attrs.get(SEEN, began)) > self._grace

    def _is_free(self, trial: FrozenTrial, seconds: float = 0.0) -> bool:
        # Trials on a server may be worked on from another folder of this host; a journal lies in its folder, which may
        # have been moved since.
        path = Path(self._owner(trial)["lock"]) if self.remote else self._path(trial.number)
        if not path.parent.is_dir():
            return True
        lock = FileLock(path)
        try:
            lock.acquire(timeout=seconds)
        except Timeout:
            return False
        lock.release()
        return True

    def _owner(self, trial: FrozenTrial) -> Mapping[str, Any]:
        owner = trial.user_attrs.get(WORKER)
        return owner if isinstance(owner, Mapping) else {}

    def _path(self, number: int) -> Path:
        return self.folder.trials / f"{number:05d}.lock"


class Hold:
    """A trial that this process carries out, until the body ends."""

    def __init__(self, lock: FileLock, trial: Trial, beat: float | None) -> None:
        self._lock, self._trial, self._beat = lock, trial, beat

    def __enter__(self) -> Hold:
        self._over = threading.Event()
        self._thread = None if self._beat is None else threading.Thread(target=self._tick, daemon=True)
        if self._thread is not None:
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.still()
        self._lock.release()

    def still(self) -> None:
        """Stop writing the time down, as nothing may be written to a finished trial."""
        self._over.set()
        if self._thread is not None:
            self._thread.join()

    def _tick(self) -> None:
        while True:
            self._trial.set_user_attr(SEEN, time.time())
            if self._over.wait(self._beat):
                return


def give_back(study: Study, trial: FrozenTrial) -> None:
    """Fail a running trial that was broken off and queue its point again, with its attributes.

    The new one is queued first: killed between the two, the next worker finds it there and only fails the old one.
    """
    from optuna.trial import TrialState

    drawn = trial.params or json.loads(trial.user_attrs.get(POINT, "{}"))
    known = any(one.user_attrs.get(RETRY_OF) == trial.number for one in study.get_trials(deepcopy=False))
    if drawn and not known:
        kept = {key: value for key, value in trial.user_attrs.items() if key not in (SEEN, WORKER)}
        enqueue(study, drawn, {**kept, RETRY_OF: trial.number})
    study.tell(trial.number, state=TrialState.FAIL)


def enqueue(study: Study, drawn: Mapping[str, Any], attributes: Mapping[str, Any]) -> None:
    """Queue a point; what it is to draw is kept beside it, where it can be read before the trial runs."""
    study.enqueue_trial(dict(drawn), user_attrs={**attributes, POINT: point_key(drawn)})
