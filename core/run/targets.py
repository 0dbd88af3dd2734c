"""The models that someone means to measure: stages of runs, folders, and models of the hub, each with its digest."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from ...evals.foreign import check_weights
from ...registry.atomic import read_json
from ...registry.errors import ConfigError, StoreError
from ...registry.sealed import file_sha256
from ...registry.suggest import did_you_mean, listing
from .comparison import find_run, stages_of
from .fingerprint import digest
from .store import COMPLETE, Stage, Store

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

    from ...registry.registry import Registry

_CONFIG = "config.json"
_CHECKPOINT = "checkpoint"
# Weights, configuration and tokenizer, in the forms in which transformers writes them; never code, never pickles.
_SUFFIXES = frozenset({".jinja", ".json", ".model", ".safetensors", ".txt"})
_OTHER_COPIES = "consolidated*"  # the same weights again, in the form of another program


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A model on disk: what people call it, its folder, the digest of its content, and the stage that it is, if any.

    ``run`` is the experiment file of the run that it was found through, which names the plugins it needs.
    """

    name: str
    folder: Path
    digest: str
    stage: Stage | None = None
    run: Path | None = None

    def load(self, registry: Registry, dtype: str = "auto") -> tuple[PreTrainedModel, PreTrainedTokenizerFast]:
        """The model in ``dtype`` (``auto``: as it was saved) and its tokenizer; ``StoreError`` where it is damaged.

        Only safetensors are read, and no code that came with a model is run.
        """
        from ..model.loading import load_model
        from ..model.tokenizer import load_tokenizer

        if self.stage is not None:
            Store(self.stage.folder.parent).verify(self.stage)
        return load_model(self.folder, registry, dtype=dtype), load_tokenizer(self.folder)


def find_targets(name: str, store: Store, phase: str | None = None, every_phase: bool = False) -> tuple[Target, ...]:
    """The models that are meant by a run (its last stage, that of ``phase``, or all of them), a stage by folder or by
    name in ``store``, a folder of a checkpoint, an export or any Hugging Face model, or a model's name on the hub.

    A hub model is fetched whole first, or found in the library's cache when offline. Nothing is loaded or verified.
    ``ConfigError`` or ``StoreError`` where there is no such model.
    """
    given = Path(name)
    if given.is_dir() and not _is_model(given):
        return _of_run(given, store, phase, every_phase)
    if phase is not None or every_phase:
        raise ConfigError(f"'{name}' is no run, so it has one model only; leave --phase and --every-phase out.")
    if given.is_dir():
        return (_of_folder(given, name),)
    if (store.root / name / COMPLETE).is_file() and PurePosixPath(name).name == name:
        return (of_stage(store.get(name)),)
    return (_of_folder(_fetch(name, store), name),)


def of_stage(stage: Stage, name: str | None = None, run: Path | None = None) -> Target:
    """The model of a committed stage; its digest comes from the checksums of the manifest."""
    below = f"{_CHECKPOINT}/"
    files = {
        path.removeprefix(below): str(facts["sha256"])
        for path, facts in stage.manifest["files"].items()
        if path.startswith(below)
    }
    found = _digest(files)
    return Target(name=name or stage.name, folder=stage.checkpoint, digest=found, stage=stage, run=run)


def _is_model(folder: Path) -> bool:
    return (folder / COMPLETE).is_file() or any((at / _CONFIG).is_file() for at in (folder, folder / _CHECKPOINT))


def _of_run(given: Path, store: Store, phase: str | None, every_phase: bool) -> tuple[Target, ...]:
    run = find_run(given)
    stages = {row.phase: row.stage for row in stages_of(run, store)}
    wanted = list(stages) if every_phase else [phase or list(stages)[-1]]
    for name in wanted:
        if name not in stages:
            raise ConfigError(
                f"the run {run.path} has no phase '{name}'.{did_you_mean(name, stages)} Phases: {', '.join(stages)}."
            )
    return tuple(of_stage(stages[name], f"{name} ({stages[name].name})", run.experiment) for name in wanted)


def _of_folder(folder: Path, name: str) -> Target:
    """The model in a folder; one that is a stage, or the checkpoint of one, is known by its manifest."""
    for place in (folder, folder.parent) if folder.name == _CHECKPOINT else (folder,):
        if (place / COMPLETE).is_file():
            place = place.resolve()
            return of_stage(Store(place.parent).get(place.name))
    at = folder if (folder / _CONFIG).is_file() else folder / _CHECKPOINT
    check_weights(at)
    files = {path.name: file_sha256(path) for path in sorted(at.iterdir()) if path.is_file() and _counts(path.name)}
    return Target(name=name, folder=at, digest=_digest(files))


def _digest(files: Mapping[str, str]) -> str:
    return digest({name: found for name, found in files.items() if _counts(name)})


def _counts(name: str) -> bool:
    # Companions are left out: the configuration holds their digest.
    path = PurePosixPath(name)
    return len(path.parts) == 1 and path.suffix in _SUFFIXES and not path.match(_OTHER_COPIES)


def _fetch(name: str, store: Store) -> Path:
    """The local folder of a hub model."""
    from huggingface_hub import snapshot_download

    stages = [stage.name for stage in store.list()]
    known = f"the store {store.root} has no such stage (it has: {listing(stages)})"
    nothing = f"there is no folder '{name}', {known}{did_you_mean(name, stages)}"
    try:
        folder = Path(
            snapshot_download(
                name,
                allow_patterns=[f"*{suffix}" for suffix in sorted(_SUFFIXES)],
                ignore_patterns=["*/*", _OTHER_COPIES],
            )
        )
    except ValueError as error:  # no name that the hub could have
        raise ConfigError(f"{nothing}; name a run, a stage, a folder or a model of the hub.") from error
    except OSError as error:
        raise ConfigError(
            f"{nothing}, and the hub gives no such model ({' '.join(str(error).split())[:200]}). Offline, "
            f"fetch it first where there is a network (hf download {name}) and give its folder."
        ) from error
    if not (folder / _CONFIG).is_file():
        raise StoreError(
            f"the local copy of '{name}' in {folder} has no {_CONFIG}; fetch it again (hf download {name})."
        )
    return folder


def plugins_of(targets: Iterable[Target], requests: Sequence[str]) -> Registry:
    """The registry with the plugins of the runs that the models came from, and those that ``requests`` name."""
    from ...registry.plugins import Plugins
    from ..config.loading import load_experiment

    runs = dict.fromkeys(str(target.run) for target in targets if target.run is not None)
    experiments = [load_experiment(run).experiment for run in runs]
    asked = dict.fromkeys(name for experiment in experiments for name in experiment.plugins)
    required = dict.fromkeys(name for experiment in experiments for name in experiment.require)
    return Plugins.load((*asked, *requests), tuple(required)).components()


def saved_dtype(folder: Path) -> str:
    """The dtype that a model was saved in, by its configuration; ``auto`` where that does not say."""
    config = read_json(folder / _CONFIG, "a model's configuration")
    for section in (config, config.get("model"), config.get("text_config")):
        if isinstance(section, dict) and (found := section.get("dtype") or section.get("torch_dtype")):
            return str(found)
    return "auto"
