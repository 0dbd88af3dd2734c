"""The record of one run: its folder, its references into the store, and the log of its metrics."""

from __future__ import annotations

import errno
import itertools
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

from ...registry.atomic import read_json, reporting, sync_folder, write_json, write_text
from ...registry.errors import StoreError
from .store import Stage

FORMAT = 1

_NAME = re.compile(r"[A-Za-z0-9][\w.-]*")


class Outcome(Protocol):
    """What a run folder keeps of a phase's outcome."""

    @property
    def name(self) -> str: ...

    @property
    def stage(self) -> Stage: ...

    @property
    def reused(self) -> bool: ...

    @property
    def action(self) -> str: ...

    @property
    def reason(self) -> str: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFolder:
    """``runs/<experiment>/<UTC time>/``: what was asked, planned and used, and which stages came of it."""

    path: Path

    @property
    def experiment(self) -> Path:
        return self.path / "experiment.yaml"

    @property
    def plan(self) -> Path:
        return self.path / "plan.json"

    @property
    def manifest(self) -> Path:
        return self.path / "manifest.json"

    @property
    def stages_file(self) -> Path:
        return self.path / "stages.json"

    def stages(self) -> list[dict[str, Any]]:
        """The stages recorded so far, in the order of the curriculum."""
        value = read_json(self.stages_file, "a run's stages")["stages"]
        if not isinstance(value, list):
            raise StoreError(f"{self.stages_file} has no list of stages; move {self.path} away and start a new run")
        return value

    def add_stage(self, outcome: Outcome) -> None:
        """Adds the reference of a phase's outcome into the store; a later one of the same phase replaces it."""
        reference = {
            "phase": outcome.name,
            "stage": outcome.stage.name,
            "digest": outcome.stage.digest,
            "reused": outcome.reused,
            "action": outcome.action,
            "reason": outcome.reason,
        }
        kept = [stage for stage in self.stages() if stage.get("phase") != outcome.name]
        write_json(self.stages_file, {"stages": [*kept, reference]})


def create_run(
    root: Path,
    experiment: str,
    *,
    text: str,
    plan: Mapping[str, Any],
    manifest: Mapping[str, Any],
    now: datetime | None = None,
) -> RunFolder:
    """Makes the folder of a new run below ``root``, named by the UTC second; a second run in it gets ``-2``.

    ``text`` is the experiment as YAML. StoreError if the folder cannot be written.
    """
    if not _NAME.fullmatch(experiment):
        raise StoreError(f"the experiment name {experiment!r} cannot name a folder; use letters, digits, '.', '_', '-'")
    parent = root / experiment
    stamp = (datetime.now(UTC) if now is None else now.astimezone(UTC)).strftime("%Y%m%dT%H%M%SZ")
    with reporting("the run", parent):
        parent.mkdir(parents=True, exist_ok=True)
        # Filled under another name, so that a run folder is never seen half made.
        new = RunFolder(path=parent / f".new-{stamp}-{secrets.token_hex(4)}")
        new.path.mkdir()
        write_text(new.experiment, text)
        write_json(new.plan, plan)
        write_json(new.stages_file, {"stages": []})
        write_json(new.manifest, {"format": FORMAT, "kind": "run", "experiment": experiment, **manifest})
        run = _place(new, parent, stamp)
        sync_folder(parent)
    return run


def _place(new: RunFolder, parent: Path, stamp: str) -> RunFolder:
    """Renames the folder to the first free name; only the rename itself can tell that a name is still free."""
    for suffix in itertools.chain([""], (f"-{number}" for number in itertools.count(2))):
        folder = parent / f"{stamp}{suffix}"
        try:
            new.path.rename(folder)
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
        else:
            break
    return RunFolder(path=folder)


def open_run(folder: Path) -> RunFolder:
    """The run in this folder; StoreError if it is missing, unreadable, or was not made by a run of this format."""
    if not folder.is_dir():
        raise StoreError(f"there is no run folder {folder}; name a folder below runs/")
    run = RunFolder(path=folder)
    for path in (run.manifest, run.experiment, run.plan, run.stages_file):
        if not path.is_file():
            raise StoreError(f"{folder} is not a run folder (it has no {path.name}); name a folder below runs/")
    manifest = read_json(run.manifest, "a run's manifest")
    if manifest.get("kind") != "run" or manifest.get("format") != FORMAT:
        raise StoreError(
            f"{run.manifest} is not the manifest of a run of format {FORMAT}; "
            "use the version that wrote it or start a new run"
        )
    run.stages()
    return run
