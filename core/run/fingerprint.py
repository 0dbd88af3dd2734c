"""What a stage is made from, as a recipe with one stable, versioned hash."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path, PurePath
from typing import Any

from ...registry.sealed import file_sha256

VERSION = "v1"
LIBRARIES = ("datasets", "numpy", "phasegate", "tokenizers", "torch", "transformers", "trl")

_ABSENT = "(absent)"


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """All that decides the bits of a stage: a plain mapping and its ``digest`` ("v1:" and 64 hex digits)."""

    mapping: Mapping[str, Any]
    digest: str

    @property
    def short(self) -> str:
        """The first 12 hex digits of the digest, as in folder names."""
        return self.digest.partition(":")[2][:12]

    @property
    def name(self) -> str:
        """``<phase>-<fingerprint12>``, the name of the stage's folder."""
        return f"{self.mapping['phase']}-{self.short}"


def recipe_of(mapping: Mapping[str, Any]) -> Recipe:
    """The recipe with this content; TypeError or ValueError where it has no stable form."""
    plain = to_plain(mapping)
    return Recipe(mapping=plain, digest=digest(plain))


def stage_recipe(
    *,
    parent: str | None,
    phase: str,
    section: Any,
    model: Any,
    tokenizer: Any,
    data: str,
    components: Mapping[str, int],
    seed: int,
    precision: str,
    libraries: Mapping[str, str] | None = None,
) -> Recipe:
    """The recipe of one stage.

    ``parent`` is the digest of the stage it starts from; ``section``, ``model`` and ``tokenizer`` are resolved
    sections (dataclasses or mappings); ``data`` is the corpus fingerprint; ``components`` maps ``dist:name`` to its
    revision. Where a section names a file or folder, put its ``content_digest`` in: a path says only where
    something lies. ``libraries`` defaults to the installed versions of those that can change numbers.
    """
    return recipe_of(
        {
            "parent": parent,
            "phase": phase,
            "section": section,
            "model": model,
            "tokenizer": tokenizer,
            "data": data,
            "components": components,
            "libraries": library_versions() if libraries is None else libraries,
            "seed": seed,
            "precision": precision,
        }
    )


def training_chain(
    parent: str | None, *, phase: str, steps: Mapping[str, Any], data: str, seed: int, precision: str, **model: Any
) -> str:
    """The digest that random streams derive from: what a phase trains on and how, not how it is judged.

    Criteria, policy and the watching of the transition are left out, and so is every field of a step that has its
    default, so that another bound or a new key of a later version leaves the trained bits as they were. It names
    streams only; whether two stages are the same is for the recipe to say.
    """
    spoken = {name: _spoken(section) for name, section in steps.items()}
    return digest(
        {
            "parent": parent, "phase": phase, "steps": spoken, "data": data, "seed": seed,
            "precision": precision, **model,
        }
    )  # fmt: skip


def _spoken(value: Any) -> Any:
    """The value with every dataclass field that has its default left out."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        said = {f.name: getattr(value, f.name) for f in dataclasses.fields(value) if not _is_default(value, f)}
        return {name: _spoken(item) for name, item in said.items()}
    if isinstance(value, Mapping):
        return {key: _spoken(item) for key, item in value.items()}
    return value


def _is_default(value: Any, field: dataclasses.Field[Any]) -> bool:
    default = field.default
    if default is dataclasses.MISSING:
        if field.default_factory is dataclasses.MISSING:
            return False
        default = field.default_factory()
    return bool(getattr(value, field.name) == default)


def library_versions() -> dict[str, str]:
    """The installed version of each library that can change the bits of a stage."""
    return {name: metadata.version(name) for name in LIBRARIES}


def digest(value: Any) -> str:
    """``v1:`` and the SHA-256 of the canonical form, equal in every process and on every machine."""
    return f"{VERSION}:{hashlib.sha256(canonical(value).encode('ascii')).hexdigest()}"


def canonical(value: Any) -> str:
    """The one ASCII text of a value: sorted keys, shortest exact floats; ``1``, ``1.0``, ``True``, ``"1"`` differ."""
    return json.dumps(to_plain(value), sort_keys=True, separators=(",", ":"), allow_nan=False)


def to_plain(value: Any, path: str = "recipe") -> Any:
    """The value in dicts, lists and scalars that JSON gives back unchanged.

    Takes dataclasses, mappings with string keys, tuples, lists, str, int, float, bool and None. Refuses the rest
    with a TypeError that names the place: sets have no order, paths no content, and numpy or enum scalars print
    differently between versions. NaN and infinities are a ValueError.
    """
    if value is None or type(value) in (bool, int, str):
        return value
    if type(value) is float:
        if not math.isfinite(value):
            raise ValueError(f"{path} is {value}, which equals nothing; use None or a number")
        return value
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: to_plain(getattr(value, f.name), f"{path}.{f.name}") for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        for key in value:
            if type(key) is not str:
                raise TypeError(f"{path} has the key {key!r} of type {type(key).__name__}; keys must be str")
        return {key: to_plain(value[key], f"{path}.{key}") for key in sorted(value)}
    if type(value) in (tuple, list):
        return [to_plain(item, f"{path}[{index}]") for index, item in enumerate(value)]
    reason = "a path says where, not what; use its content_digest" if isinstance(value, PurePath) else "no stable form"
    raise TypeError(f"{path} is a {type(value).__module__}.{type(value).__qualname__}: {reason}")


def content_digest(path: Path) -> str:
    """The digest of a file's bytes, or of all files below a folder with their relative names."""
    if path.is_dir():
        files = sorted(p for p in path.rglob("*") if p.is_file())
        return digest({p.relative_to(path).as_posix(): file_sha256(p) for p in files})
    return digest(file_sha256(path))


def differences(old: Recipe | Mapping[str, Any], new: Recipe | Mapping[str, Any]) -> list[str]:
    """One line ``path: old -> new`` for each leaf in which two recipes differ, in sorted order."""
    return list(_differences(_plain_mapping(old), _plain_mapping(new), ""))


def _plain_mapping(value: Recipe | Mapping[str, Any]) -> Any:
    return to_plain(value.mapping if isinstance(value, Recipe) else value)


def _differences(old: Any, new: Any, path: str) -> Iterator[str]:
    if isinstance(old, dict) and isinstance(new, dict):
        for key in sorted({*old, *new}):
            yield from _differences(old.get(key, _ABSENT), new.get(key, _ABSENT), f"{path}.{key}" if path else key)
    elif isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        for index, (left, right) in enumerate(zip(old, new, strict=True)):
            yield from _differences(left, right, f"{path}[{index}]")
    elif type(old) is not type(new) or old != new:
        yield f"{path}: {_show(old)} -> {_show(new)}"


def _show(value: Any) -> str:
    return _ABSENT if value is _ABSENT else json.dumps(value, ensure_ascii=False)
