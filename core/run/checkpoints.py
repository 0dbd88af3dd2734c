"""Finding the checkpoint that someone means, and giving it a voice."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from ...registry.errors import StoreError
from .records import open_run
from .store import COMPLETE, Stage, Store

if TYPE_CHECKING:
    from ..model.speaker import Speaker

_STORE = "store"


def load(
    folder: str | os.PathLike[str], plugins: Iterable[str] = (), store: str | os.PathLike[str] | None = None
) -> Speaker:
    """See ``phasegate.load``."""
    from ...registry.plugins import Plugins
    from ..model.loading import load_model
    from ..model.speaker import Speaker
    from ..model.tokenizer import load_tokenizer

    registry = Plugins.load(tuple(plugins)).components()
    checkpoint = find_checkpoint(folder, store)
    speaker = Speaker(load_model(checkpoint, registry), load_tokenizer(checkpoint))
    if stale := speaker.stale():
        warnings.warn(
            f"the {' and '.join(stale)} of the model in {checkpoint} belong to other weights than it has now, so what "
            "was measured of them does not hold; fit them again after the last step that trains the model",
            stacklevel=3,
        )
    return speaker


def find_checkpoint(name: str | os.PathLike[str], store: str | os.PathLike[str] | None = None) -> Path:
    """The folder of the model that is meant by a checkpoint or an export, a stage folder, a run folder (its last
    stage), or the name of a stage in ``store``.

    Without ``store`` a run's stages are looked for in the folder ``store`` beside the folder of runs, then in the
    working directory's. A stage's checkpoint is held against the digests of its manifest. Raises ``StoreError``.
    """
    given = Path(name)
    if (given / "config.json").is_file():
        return given
    if (given / COMPLETE).is_file():
        given = given.resolve()
        return _verified(Store(given.parent), given.name)
    if (given / "checkpoint" / "config.json").is_file():
        return given / "checkpoint"
    if given.is_dir():
        stages = open_run(given).stages()
        if not stages:
            raise StoreError(f"the run {given} has finished no phase yet; run it again and it goes on")
        return _verified(_store_of(given, stages[-1]["stage"], store), stages[-1]["stage"])
    return _verified(Store(Path(store or _STORE)), os.fspath(name))


def _store_of(run: Path, stage: str, store: str | os.PathLike[str] | None) -> Store:
    if store is not None:
        return Store(Path(store))
    beside = run.resolve().parents[1].with_name(_STORE)
    return Store(beside if (beside / stage).is_dir() else Path(_STORE))


def _verified(store: Store, name: str) -> Path:
    stage: Stage = store.get(name)
    store.verify(stage)
    return stage.checkpoint
