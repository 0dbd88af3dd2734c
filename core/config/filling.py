"""Filling in what an experiment leaves to its size: model sizes, vocabulary, sequence length."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...registry.errors import PhasegateError
from .dial import Derived, derive
from .problems import Problems
from .schema import Experiment

if TYPE_CHECKING:
    from ...registry.registry import Registry


@dataclass(frozen=True, slots=True, kw_only=True)
class Filled:
    """What the size and the author's own values give together: ``values`` for recipes, ``layer`` for the experiment."""

    values: Mapping[str, Any]
    layer: Mapping[str, Any]


def fill(experiment: Experiment, registry: Registry, problems: Problems) -> Filled:
    """Return derived values with the experiment's own laid over them.

    Model options are filled only where the model component has a field of that name: a model that takes its sizes
    from elsewhere stays as it says.
    """
    values: dict[str, Any] = dict(derive(experiment.size).values)
    options = _model_options(experiment, registry, values)
    values |= {key: item for key, item in options.items() if key in values and type(item) in (int, float)}
    if experiment.tokenizer.vocab_size is not None:
        values["vocab_size"] = experiment.tokenizer.vocab_size
    elif experiment.tokenizer.path is not None:
        size = tokenizer_size(Path(experiment.tokenizer.path))
        if size is None:
            problems.add(
                ("tokenizer", "path"),
                f"tokenizer.path '{experiment.tokenizer.path}' is no folder with a tokenizer.json, so its size is "
                "not known here; set tokenizer.vocab_size beside it.",
            )
        else:
            values["vocab_size"] = size
    values["sequence_length"] = experiment.data.sequence_length or values["sequence_length"]
    layer = {
        "model": {"options": options},
        "tokenizer": {"vocab_size": values["vocab_size"]},
        "data": {"sequence_length": values["sequence_length"]},
    }
    return Filled(values=values, layer=layer)


def explain(experiment: Experiment) -> Derived:
    """Return the dial's values as a complete experiment has them, with the reason for each.

    What the experiment sets itself says so, with what the size would give. Rows and learning rate are those that
    recipes start from; steps may scale or override them.
    """
    derived = derive(experiment.size)
    own = {
        **{key: item for key, item in experiment.model.options.items() if key in derived.values},
        "vocab_size": experiment.tokenizer.vocab_size,
        "sequence_length": experiment.data.sequence_length,
    }
    changed = {key: item for key, item in own.items() if item is not None and item != derived.values[key]}
    reasons = {key: f"set by the experiment; size {experiment.size} gives {derived.values[key]}" for key in changed}
    return Derived(values={**derived.values, **changed}, reasons={**derived.reasons, **reasons})


def _model_options(experiment: Experiment, registry: Registry, values: Mapping[str, Any]) -> dict[str, Any]:
    said = dict(experiment.model.options)
    try:
        config = registry.get("model", experiment.model.use).config_class()
    except PhasegateError:
        return said  # the check of references says what is wrong with it
    known = [field.name for field in fields(config)] if config is not None else []
    derived = {name: values[name] for name in known if name in values}
    return {**derived, **{key: item for key, item in said.items() if item is not None or key not in derived}}


def tokenizer_size(folder: Path) -> int | None:
    """Return the number of ids of a tokenizer on disk, or None if ``folder`` holds no readable one."""
    try:
        content = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
        vocabulary = content["model"]["vocab"]
        added = [int(token["id"]) for token in content.get("added_tokens", [])]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    ids = vocabulary.values() if isinstance(vocabulary, dict) else range(len(vocabulary))
    return 1 + max([-1, *map(int, ids), *added])
