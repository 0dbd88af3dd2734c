"""What travels with a model beside its weights: confidence probes, a safety anchor, a draft model.

Companions lie in ``companions/`` beside the weights, each as JSON and safetensors with their digests; the model's
configuration lists them, so that one that was lost or changed is an error and never a silent absence.
"""

from __future__ import annotations

import hashlib
import importlib
import json
from collections.abc import Mapping
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
_CLASSES = {"anchor": ".anchors:Guard", "draft": ".draft:Draft", "probes": ".probes:Probes"}
_ATTRIBUTE = "_phasegate_companions"


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


def trunk_digest(model: Any) -> str:
    """SHA-256 over names, shapes and bytes of all weights: what a companion was fitted to."""
    whole = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        data = tensor.detach().cpu().contiguous()
        whole.update(f"{name} {tuple(data.shape)} {data.dtype}\n".encode())
        whole.update(data.flatten().view(dtype=_bytes()).numpy().tobytes())
    return whole.hexdigest()


def save_companions(model: Any, folder: Path) -> None:
    """Write the model's companions below ``folder`` with their digests."""
    companions = companions_of(model)
    if not companions:
        return
    home = folder / FOLDER
    home.mkdir(parents=True, exist_ok=True)
    index = {}
    for name, companion in companions.items():
        facts, tensors = companion.save()
        content, weights = home / f"{name}.json", home / f"{name}.safetensors"
        content.write_text(json.dumps(facts, indent=1, sort_keys=True, allow_nan=False), encoding="utf-8")
        save_file({key: value.detach().cpu().contiguous() for key, value in sorted(tensors.items())}, weights)
        index[name] = {"facts": _sha(content), "weights": _sha(weights)}
    (home / "index.json").write_text(json.dumps(index, indent=1, sort_keys=True), encoding="utf-8")


def load_companions(model: Any, folder: Path, registry: Any) -> None:
    """Attach what the model's configuration lists; ``StoreError`` when anything of it is missing or changed."""
    names = getattr(model.config, FIELD, None) or []
    if not names:
        return
    home = folder / FOLDER
    try:
        index = json.loads((home / "index.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise StoreError(
            f"The model in '{folder}' was saved with {' and '.join(names)}, but {home} cannot be read ({error}); "
            "copy the whole folder again."
        ) from error
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
