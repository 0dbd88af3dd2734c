"""A model with a safety anchor as a folder that no reader takes without it.

The model's configuration lies inside one of a type that no library knows, and its weights have a name that no library
looks for by itself: whoever would leave the anchor out finds neither. That prevents accidents. It does not stop someone
who takes the folder apart: weights that one has can be used.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from ...registry.errors import StoreError
from .companions import FIELD

GUARDED = "phasegate_guarded"
VARIANT = "guarded"
_CONFIG = "config.json"
_INNER = "model"


def is_guarded(folder: str | os.PathLike[str]) -> bool:
    """Whether a folder holds a model that was written with its anchor."""
    path = Path(folder) / _CONFIG
    return path.is_file() and _read(path).get("model_type") == GUARDED


def hide(folder: Path) -> None:
    """Put the configuration of the model in ``folder`` inside one of our type."""
    path = folder / _CONFIG
    inner = _read(path)
    outer = {"model_type": GUARDED, FIELD: inner.get(FIELD), _INNER: inner}
    path.write_text(json.dumps(outer, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def guarded_options(folder: Path) -> dict[str, Any]:
    """How ``from_pretrained`` reads the model in a guarded folder; nothing for any other folder.

    Raises ``StoreError`` where the configuration no longer lists an anchor.
    """
    if not is_guarded(folder):
        return {}
    from transformers import AutoConfig

    outer = _read(folder / _CONFIG)
    inner = outer.get(_INNER)
    inner = inner if isinstance(inner, dict) else {}
    if "anchor" not in (inner.get(FIELD) or ()) or inner.get(FIELD) != outer.get(FIELD):
        raise StoreError(
            f"The model in '{folder}' was exported with a safety anchor, and its {_CONFIG} no longer says so; copy the "
            "whole folder again."
        )
    try:
        known = AutoConfig.for_model(str(inner.get("model_type")))
    except ValueError as error:
        raise StoreError(f"The model in '{folder}' is of a type that is not known here: {error}.") from error
    return {"config": type(known).from_dict(inner), "variant": VARIANT}


def _read(path: Path) -> dict[str, Any]:
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise StoreError(f"'{path}' cannot be read ({error}); copy the whole folder again.") from error
    return config if isinstance(config, dict) else {}
