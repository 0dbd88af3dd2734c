"""What travels with a model beside its weights: confidence probes, a safety anchor, a draft model.

Companions lie in ``companions/`` beside the weights, each as JSON and safetensors, with an index of their digests. The
model's configuration lists them and holds the digest of the index, so that one that was lost, changed or taken off the
list is an error and never a silent absence. (Whoever rewrites the configuration *and* the folder in agreement is not
found out: digests are no signatures.)
"""

from __future__ import annotations

import hashlib
import importlib
import json
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, Self

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from ...registry.errors import StoreError

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

FOLDER = "companions"
FIELD = "phasegate_companions"  # in config.json: the names that must be there
DIGEST = "phasegate_companions_digest"  # in config.json: SHA-256 of the index
_CLASSES = {
    "anchor": ".anchors:Guard",
    "draft": ".draft:Draft",
    "origin": ".origin:Origin",
    "probes": ".probes:Probes",
}
_ATTRIBUTE = "_phasegate_companions"
_FITTED_TO = ("digest", "trunk")  # what an anchor and what others call the digest of their weights
_IDLE = ".selection_bias"
_INDEX = "index.json"


class Companion(Protocol):
    """Something fitted to one model that is saved and loaded with it."""

    def save(self) -> tuple[Mapping[str, Any], Mapping[str, torch.Tensor]]:
        """Return facts as JSON data and tensors by name; together they restore the companion bit for bit."""

    @classmethod
    def restore(
        cls, facts: Mapping[str, Any], tensors: Mapping[str, torch.Tensor], model: PreTrainedModel, registry: Any
    ) -> Self:
        """Return the companion for this model; ``registry`` resolves components that it names."""


def companions_of(model: Any) -> Mapping[str, Any]:
    """The companions of a model by name (``probes``, ``anchor``, ``draft``); empty for a model without any."""
    found: Mapping[str, Any] = model.__dict__.get(_ATTRIBUTE, {})
    return found


def attach(model: Any, name: str, companion: Companion | None) -> None:
    """Give the model a companion under one of the known names, in place of an earlier one; None takes it away."""
    if name not in _CLASSES:
        raise KeyError(name)
    kept = {key: value for key, value in companions_of(model).items() if key != name}
    if companion is not None:
        kept[name] = companion
    # Not a submodule: its parameters are none of the model's.
    model.__dict__[_ATTRIBUTE] = dict(sorted(kept.items()))
    setattr(model.config, FIELD, sorted(kept) or None)
    setattr(model.config, DIGEST, None)  # known when they are saved


def hand_over(old: Any, new: Any) -> None:
    """Give the companions of one model to another that computes the same."""
    for name, companion in companions_of(old).items():
        attach(new, name, companion)


def rebind(model: Any, before: str | None) -> None:
    """Let companions that were fitted to weights of the digest ``before`` belong to the model's weights as they are
    now, for a change after which it computes the same; what was stale stays so."""
    if before is None or not companions_of(model):
        return
    now, sealed = trunk_digest(model), getattr(model.config, DIGEST, None)
    for name, companion in companions_of(model).items():
        for field in _FITTED_TO:
            if getattr(companion, field, None) == before:
                attach(model, name, replace(companion, **{field: now}))
    # As after loading: the folder that it came from is the same.
    setattr(model.config, DIGEST, sealed)


def trunk_digest(model: Any) -> str:
    """SHA-256 over names, shapes and bytes of all weights: what a companion was fitted to.

    A selection bias of zero does nothing and does not count, so that an export to a stock family has the same digest.
    """
    whole = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        if name.endswith(_IDLE) and not bool(tensor.any()):
            continue
        data = tensor.detach().cpu().contiguous()
        whole.update(f"{name} {tuple(data.shape)} {data.dtype}\n".encode())
        whole.update(data.flatten().view(dtype=_bytes()).numpy().tobytes())
    return whole.hexdigest()


def save_companions(model: Any, folder: Path) -> None:
    """Write the model's companions below ``folder``, in place of any there, and note their digest in its configuration,
    which is to be saved afterwards."""
    companions = companions_of(model)
    if lost := sorted({*(getattr(model.config, FIELD, None) or ())} - {*companions}):
        raise StoreError(
            f"The model was read without its {' and '.join(lost)}, which its configuration lists; read it with "
            "load_model, or attach them again, before it is saved."
        )
    home = folder / FOLDER
    shutil.rmtree(home, ignore_errors=True)
    if not companions:
        return
    home.mkdir(parents=True)
    index = {}
    for name, companion in companions.items():
        facts, tensors = companion.save()
        content, weights = home / f"{name}.json", home / f"{name}.safetensors"
        content.write_text(json.dumps(facts, indent=1, sort_keys=True, allow_nan=False), encoding="utf-8")
        save_file({key: value.detach().cpu().contiguous() for key, value in sorted(tensors.items())}, weights)
        index[name] = {"facts": _sha(content), "weights": _sha(weights)}
    (home / _INDEX).write_text(json.dumps(index, indent=1, sort_keys=True), encoding="utf-8")
    setattr(model.config, DIGEST, _sha(home / _INDEX))


def load_companions(model: Any, folder: Path, registry: Any) -> None:
    """Attach what the model's configuration lists; ``StoreError`` when anything of it is missing or changed, or lies
    there without being listed."""
    names = list(getattr(model.config, FIELD, None) or ())
    sealed = getattr(model.config, DIGEST, None)
    home = folder / FOLDER
    if not names and not home.exists():
        return
    try:
        found = _sha(home / _INDEX)
        index = json.loads((home / _INDEX).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise StoreError(
            f"The model in '{folder}' was saved with {' and '.join(names) or 'companions'}, but {home} cannot be read "
            f"({error}); copy the whole folder again."
        ) from error
    if found != sealed or sorted(index) != sorted(names):
        raise StoreError(
            f"The model in '{folder}' was saved with {' and '.join(sorted(index)) or 'nothing'} beside it, and its "
            "config.json or its companions were changed afterwards; copy the whole folder again."
        )
    for name in names:
        content, weights = home / f"{name}.json", home / f"{name}.safetensors"
        try:
            intact = index[name] == {"facts": _sha(content), "weights": _sha(weights)}
            facts, tensors = json.loads(content.read_text(encoding="utf-8")), load_file(weights)
        except (KeyError, OSError, SafetensorError, ValueError) as error:
            raise StoreError(f"The {name} of the model in '{folder}' cannot be read: {error}.") from error
        if not intact:
            raise StoreError(f"The {name} of the model in '{folder}' was changed after it was saved; copy it again.")
        attach(model, name, _class_of(name).restore(facts, tensors, model, registry))
    # Attaching forgets it, and a configuration that is saved by itself must still say what belongs to it.
    setattr(model.config, DIGEST, sealed)


def _class_of(name: str) -> Any:
    if name not in _CLASSES:
        raise StoreError(f"this version knows no companion '{name}'; it knows {', '.join(sorted(_CLASSES))}")
    module, _, attribute = _CLASSES[name].partition(":")
    return getattr(importlib.import_module(module, __package__), attribute)


def _bytes() -> Any:
    import torch

    return torch.uint8


def _sha(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
