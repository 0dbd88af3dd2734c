"""Models from elsewhere are data: no pickles are read, no code of theirs is run, none is fetched for them."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..registry.errors import StoreError
from ..registry.suggest import flat

_ADAPTER = "adapter_config.json"
_CODE = "auto_map"
_FETCHED = "_implementation"  # attn_implementation and its like: "owner/name" would be code of the hub
_PICKLES = ("*.bin", "*.ckpt", "*.pkl", "*.pt", "*.pth")


def refuse_code(location: str | os.PathLike[str], revision: str | None = None, *, local_only: bool = False) -> None:
    """Raise ``StoreError`` for a model that could not be read without running something: weights only as pickles, an
    adapter that leads elsewhere, kernels that its configuration would fetch.

    ``location`` is a folder or a model of the hub. Warns where the model brings code of its own: that is never run, and
    the model is read as the family of transformers that it says it is, or not at all. Raises ``OSError`` where there is
    no configuration.
    """
    from transformers import PreTrainedConfig

    where = os.fspath(location)
    if Path(where).is_dir():
        _refuse_pickles(Path(where))
    config, _ = PreTrainedConfig.get_config_dict(where, revision=revision, local_files_only=local_only)
    if not isinstance(config, Mapping):
        raise StoreError(f"The config.json of '{where}' holds no mapping; copy or download the whole model.")
    for name, value in _settings(config):
        if name.endswith(_FETCHED) and "/" in str(value):
            raise StoreError(
                f"The model in '{where}' asks for '{value}' as its {name.lstrip('_')}, which is code that would be "
                "fetched from the hub; take the line out of its config.json."
            )
        if name == _CODE:
            warnings.warn(
                f"the model in '{where}' brings code of its own ({_CODE}), which is never run: it is read as the "
                f"{config.get('model_type', 'unknown')} of transformers, or not at all",
                stacklevel=3,
            )


@contextmanager
def strictly() -> Iterator[None]:
    """Turn whatever the library trips over in a configuration that makes no sense into a ``ValueError`` of one line."""
    from huggingface_hub.errors import StrictDataclassError

    try:
        yield
    except (AttributeError, ImportError, LookupError, StrictDataclassError, TypeError) as error:
        raise ValueError(flat(error)) from error


def check_weights(folder: Path) -> None:
    """Raise ``StoreError`` unless a folder holds weights as safetensors, and no adapter beside them."""
    _refuse_pickles(folder)
    if not any(folder.glob("*.safetensors")):
        raise StoreError(f"'{folder}' has no weights (*.safetensors); copy or download the whole model.")


def _refuse_pickles(folder: Path) -> None:
    if (folder / _ADAPTER).is_file():
        raise StoreError(
            f"'{folder}' holds an adapter ({_ADAPTER}), which names weights that lie elsewhere; merge it into its "
            "model and save that whole."
        )
    if any(any(folder.glob(name)) for name in _PICKLES) and not any(folder.glob("*.safetensors")):
        raise StoreError(
            f"'{folder}' has weights only as pickles, which could run anything; convert them with save_pretrained."
        )


def _settings(config: Mapping[str, Any], inside: str = "") -> Iterator[tuple[str, Any]]:
    """Every key of a configuration with its value, at every depth; below an implementation, under its name."""
    for key, value in config.items():
        name = inside or str(key)
        if isinstance(value, Mapping) and name != _CODE:
            yield from _settings(value, name if name.endswith(_FETCHED) else "")
        else:
            yield name, value
