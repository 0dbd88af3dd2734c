"""The store: every finished stage under the name of its recipe, whole or not there.

The order of use, in which only the first step works on a read-only store::

    stage = store.find(recipe)
    if stage is None:
        with store.single_flight(recipe, waiting=print):
            stage = store.find(recipe)  # another process may have made it meanwhile
            if stage is None:
                work = store.begin(recipe)  # kept between attempts
                ...
                with store.draft(work) as draft:
                    ...  # fill draft.checkpoint, draft.evidence, draft.metrics
                    stage = store.commit(draft, {"verdicts": ...})
"""

from __future__ import annotations

import secrets
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ...registry.atomic import read_json, reporting, sync_file, sync_folder, write_json, write_text
from ...registry.errors import StoreError
from ...registry.sealed import damage, file_sha256, fingerprint_of
from . import lock
from .fingerprint import Recipe, canonical, differences, recipe_of

FORMAT = 1
COMPLETE = "COMPLETE"
MANIFEST = "manifest.json"
RECIPE = "recipe.json"

_DRAFT = ".draft-"
_NEW = ".new-"
_TRASH = ".trash-"
_OWN_KEYS = ("created", "digest", "files", "format", "recipe", "stage")


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """A committed stage; nothing in it changes any more."""

    name: str
    folder: Path
    manifest: Mapping[str, Any]

    @property
    def checkpoint(self) -> Path:
        return self.folder / "checkpoint"

    @property
    def evidence(self) -> Path:
        return self.folder / "evidence"

    @property
    def metrics(self) -> Path:
        return self.folder / "metrics.jsonl"

    @property
    def recipe(self) -> Recipe:
        return recipe_of(self.manifest["recipe"])

    @property
    def digest(self) -> str:
        return str(self.manifest["digest"])


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """The folder in which a stage is being made; ``fresh`` is False when an earlier attempt left it."""

    recipe: Recipe
    folder: Path
    fresh: bool

    @property
    def metrics(self) -> Path:
        return self.folder / "metrics.jsonl"


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """A stage being written: private to this process, gone if the body fails."""

    work: Work
    folder: Path

    @property
    def checkpoint(self) -> Path:
        return self.folder / "checkpoint"

    @property
    def evidence(self) -> Path:
        return self.folder / "evidence"

    @property
    def metrics(self) -> Path:
        return self.folder / "metrics.jsonl"


class Store:
    """Stages in one folder, found by recipe and made by one process at a time."""

    def __init__(self, root: Path) -> None:
        self.root = root
        if root.exists() and not root.is_dir():
            raise StoreError(f"the store {root} is a file, not a folder; name another folder")

    def find(self, recipe: Recipe) -> Stage | None:
        """The committed stage of this recipe, or None; StoreError if its folder was made from another recipe."""
        return self._committed(self.root / recipe.name, recipe)

    def get(self, name: str) -> Stage:
        """The committed stage with this folder name; StoreError if there is none."""
        folder = self.root / name
        if Path(name).name != name or not (folder / COMPLETE).is_file():
            known = ", ".join(stage.name for stage in self.list()) or "none"
            raise StoreError(f"the store {self.root} has no stage {name!r}; it has: {known}")
        return self._open(folder)

    def list(self) -> tuple[Stage, ...]:
        """All committed stages, by name."""
        if not self.root.is_dir():
            return ()
        with _reading(self.root):
            folders = sorted(path.parent for path in self.root.glob(f"*/{COMPLETE}"))
        return tuple(self._open(folder) for folder in folders if not folder.name.startswith("."))

    def single_flight(
        self,
        recipe: Recipe,
        *,
        waiting: Callable[[str], None] | None = None,
        stop: Callable[[], None] | None = None,
    ) -> AbstractContextManager[None]:
        """The right to make this stage; held by one process at a time (see ``lock.single_flight``)."""
        path = self.root / ".locks" / f"{recipe.name}.lock"
        return lock.single_flight(path, f"stage {recipe.name}", waiting=waiting, stop=stop)

    def begin(self, recipe: Recipe) -> Work:
        """The work folder of this stage, from an earlier attempt or new; the stage's lock must be held.

        A folder of that name that was not begun from this very recipe is a StoreError and stays as it is.
        """
        folder = self.root / ".work" / recipe.name
        if folder.exists():
            if not (folder / RECIPE).is_file():
                raise StoreError(f"{folder} was not made by a run (it has no {RECIPE}); move it away and run again")
            _same(recipe, read_json(folder / RECIPE, "an unfinished stage"), folder)
            return Work(recipe=recipe, folder=folder, fresh=False)
        with reporting(f"stage {recipe.name}", self.root):
            folder.parent.mkdir(parents=True, exist_ok=True)
            self._empty_trash()
            for done in folder.parent.glob("[!.]*"):
                if (self.root / done.name / COMPLETE).is_file():  # killed between the mark and the removal
                    _discard(done)
            for left in folder.parent.glob(f"{_NEW}{recipe.name}-*"):
                shutil.rmtree(left)
            # Renamed into place with its recipe inside, so that no kill leaves a folder that seems foreign.
            new = folder.with_name(f"{_NEW}{recipe.name}-{secrets.token_hex(4)}")
            new.mkdir()
            write_json(new / RECIPE, recipe.mapping)
            new.rename(folder)
            sync_folder(folder.parent)
        return Work(recipe=recipe, folder=folder, fresh=True)

    @contextmanager
    def draft(self, work: Work) -> Iterator[Draft]:
        """A private folder beside the target to write the stage into; removed unless the body commits it.

        Failed writes in the body come out as StoreError. The stage's lock must be held.
        """
        name = work.recipe.name
        folder = self.root / f"{_DRAFT}{name}-{secrets.token_hex(4)}"
        try:
            with reporting(f"stage {name}", self.root):
                for left in self.root.glob(f"{_DRAFT}{name}-*"):
                    shutil.rmtree(left)
                (folder / "checkpoint").mkdir(parents=True)
                (folder / "evidence").mkdir()
                yield Draft(work=work, folder=folder)
        finally:
            # After a commit there is nothing here; what cannot be removed now, the next draft removes.
            shutil.rmtree(folder, ignore_errors=True)

    def commit(self, draft: Draft, facts: Mapping[str, Any]) -> Stage:
        """Makes the draft the stage of its recipe and removes the work folder.

        ``facts`` goes into the manifest beside recipe, digest, checksums and time; the metrics of the work folder
        come along unless the draft has its own. Everything is synced, then
        renamed into place, then marked COMPLETE; killed before the mark, there is no stage. If another process
        committed the same recipe meanwhile, its stage is returned and the draft is dropped.
        """
        taken = sorted(set(facts) & set(_OWN_KEYS))
        if taken:
            raise ValueError(f"the manifest's own keys cannot be given as facts: {', '.join(taken)}")
        recipe = draft.work.recipe
        target = self.root / recipe.name
        with reporting(f"stage {recipe.name}", self.root):
            stage = self._committed(target, recipe)
            if stage is None:
                if draft.work.metrics.is_file() and not draft.metrics.exists():
                    shutil.copyfile(draft.work.metrics, draft.metrics)
                self._seal(draft.folder, recipe, facts)
                self._clear(target, recipe)
                draft.folder.rename(target)
                sync_folder(self.root)
                write_text(target / COMPLETE, file_sha256(target / MANIFEST) + "\n")
                stage = self._open(target)
            _discard(draft.work.folder)
        return stage

    def verify(self, stage: Stage) -> None:
        """Reads every file of the stage; StoreError names the first that is missing, cut short or changed."""
        for name, facts in stage.manifest["files"].items():
            path = stage.folder / name
            found = damage(path, facts)
            if found is not None:
                raise StoreError(
                    f"stage {stage.name} is damaged: {path} {found}; "
                    f"move {stage.folder} away and run again to train it anew"
                )

    def _committed(self, folder: Path, recipe: Recipe) -> Stage | None:
        if not (folder / COMPLETE).is_file():
            return None
        _same(recipe, _manifest(folder)["recipe"], folder)
        return self._open(folder)

    def _open(self, folder: Path) -> Stage:
        manifest = _manifest(folder)
        with _reading(folder):
            sealed = (folder / COMPLETE).read_text(encoding="ascii", errors="replace").strip()
            found = file_sha256(folder / MANIFEST)
        if sealed != found:
            raise StoreError(
                f"{folder / MANIFEST} was changed after the stage was committed (SHA-256 {found[:12]} instead of "
                f"{sealed[:12]}); restore it, or move {folder} away and run again"
            )
        return Stage(name=folder.name, folder=folder, manifest=manifest)

    def _seal(self, folder: Path, recipe: Recipe, facts: Mapping[str, Any]) -> None:
        """Syncs every file and folder of the draft and writes its manifest."""
        files: dict[str, Any] = {}
        folders = [folder]
        for path in sorted(folder.rglob("*")):
            if path.is_symlink() or not (path.is_file() or path.is_dir()):
                raise StoreError(f"stage {recipe.name} cannot hold {path}: it is no plain file; copy its content")
            if path.is_dir():
                folders.append(path)
                continue
            sync_file(path)
            files[path.relative_to(folder).as_posix()] = fingerprint_of(path)
        own = {
            "format": FORMAT,
            "stage": recipe.name,
            "digest": recipe.digest,
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            "recipe": recipe.mapping,
            "files": files,
        }
        write_json(folder / MANIFEST, {**own, **facts})
        for path in reversed(folders):
            sync_folder(path)

    def _clear(self, target: Path, recipe: Recipe) -> None:
        """Takes away what a commit left that was killed before its mark; anything else there is not ours."""
        if not target.exists():
            return
        if not (target / MANIFEST).is_file():
            raise StoreError(f"{target} was not made by a run (it has no {MANIFEST}); move it away and run again")
        _same(recipe, _manifest(target)["recipe"], target)
        _discard(target)

    def _empty_trash(self) -> None:
        # Several processes may sweep at once; what one of them misses, the next sweep takes.
        for folder in (self.root, self.root / ".work"):
            for left in folder.glob(f"{_TRASH}*"):
                shutil.rmtree(left, ignore_errors=True)


def _discard(folder: Path) -> None:
    # Renamed first: a kill in the middle of the removal must not leave a folder that seems foreign.
    trash = folder.with_name(f"{_TRASH}{folder.name}-{secrets.token_hex(4)}")
    with suppress(FileNotFoundError):  # another process was first
        folder.rename(trash)
    shutil.rmtree(trash, ignore_errors=True)


def _manifest(folder: Path) -> dict[str, Any]:
    path = folder / MANIFEST
    manifest = read_json(path, "a stage's manifest")
    if manifest.get("format") != FORMAT:
        raise StoreError(
            f"{path} has format {manifest.get('format')!r}, this version reads {FORMAT}; "
            "use another store or the version that wrote it"
        )
    for key, kind in (("recipe", dict), ("digest", str), ("files", dict), ("stage", str)):
        if not isinstance(manifest.get(key), kind):
            raise StoreError(f"{path} has no usable {key!r}; move {folder} away and run again")
    return manifest


def _same(recipe: Recipe, found: Mapping[str, Any], folder: Path) -> None:
    """Compares whole recipes: equal names are not enough."""
    try:
        lines = "; ".join(differences(found, recipe))
        equal = canonical(found) == canonical(recipe.mapping)
    except (TypeError, ValueError) as error:
        raise StoreError(f"{folder} holds a recipe without a stable form ({error}); move it away") from error
    if not equal:
        raise StoreError(
            f"{folder} was made from another recipe than this run's ({lines}); "
            "move it away or use another store, nothing was overwritten"
        )


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StoreError(f"cannot read {path}: {error.strerror or error}") from error
