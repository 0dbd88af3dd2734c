"""Writes ``reference.md`` beside it from docstrings and specs: run ``python docs/reference.py`` when they changed."""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import MISSING, Field, fields, is_dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import phasegate
from phasegate.core.config.conversions import DistillOptions
from phasegate.core.config.objectives import OPTIONS
from phasegate.registry import contexts, hookspecs
from phasegate.registry.components import KINDS, Component
from phasegate.registry.entries import Entry
from phasegate.registry.hookspecs import HOOKS
from phasegate.registry.options import describe
from phasegate.registry.plugins import Plugins

PAGE = Path(__file__).with_suffix(".md")

#: What a component of each kind builds.
CONTRACTS = {
    "anchor": "core.model.anchors:Anchor",
    "gate": "evals.context:Gate",
    "loss": "core.training.terms:Loss",
    "mixer": "core.model.mixer:MixerBase",
    "model": "core.model.builder:ModelBuilder",
    "phase": "core.run.phase:Phase",
    "quantizer": "core.model.quantizer:Quantizer",
    "router": "core.model.router:RouterBase",
    "search-space": "core.study.space:Space",
    "source": "core.data.source:Source",
}

#: What the face of the package has beside classes and functions, which say it themselves.
VALUES = {
    "KINDS": "The spec class of every kind, by the kind's name.",
    "__version__": "The version of phasegate.",
    "hookimpl": "Marks a function of a plugin as the implementation of the hook that it is called like.",
}

HEAD = """\
# Reference

Written by `python docs/reference.py` from docstrings and specs; a test holds this page against them. How a plugin is
written is told in [plugins](plugins.md), when hooks are called in [life cycle](lifecycle.md), and what of all this
stays as it is in [compatibility](compatibility.md)."""


def page() -> str:
    """The whole page."""
    registry = Plugins.load(()).components()
    parts = [HEAD, "## The package", *face(), "## Hooks", *hooks(), "## Contexts", *context_classes()]
    parts += ["## Steps", *steps(), "## Every component", prose(Component.__doc__), field_table(fields(Component))]
    for kind, spec in KINDS.items():
        entries = [entry for entry in registry if entry.kind == kind]
        title = f"{kind.capitalize()}{'es' if kind.endswith('s') else 's'}"
        parts += [f"## {title}", prose(spec.__doc__), *contract(kind), *spec_fields(spec)]
        for entry in entries:
            parts += component(entry)
    return "\n\n".join(parts) + "\n"


def face() -> Iterator[str]:
    """Every public name of the package with what it promises."""
    rows = []
    for name in phasegate.__all__:
        value = getattr(phasegate, name)
        text = VALUES.get(name) or prose(value.__doc__).split("\n\n")[0]
        rows.append((f"`{name}`", flat(text)))
    yield table(("from phasegate import …", ""), rows)


def hooks() -> Iterator[str]:
    """Every hook with its signature, when it is called, and an example."""
    for name in HOOKS:
        hook = getattr(hookspecs, name)
        said, _, example = inspect.cleandoc(hook.__doc__).partition("\nExample::")
        context = inspect.signature(hook).parameters.get("ctx")
        takes = f" It takes a [{context.annotation}](#{context.annotation.lower()})." if context else ""
        yield f"### {name}"
        yield f"`{name}{signature(hook)}`"
        yield prose(said) + takes
        yield fenced(inspect.cleandoc(example).replace("\n\n@", "\n\n\n@"))


def context_classes() -> Iterator[str]:
    """Every context with its fields."""
    for name in sorted(name for name, one in vars(contexts).items() if is_dataclass(one)):
        kind = getattr(contexts, name)
        yield f"### {name}"
        yield prose(kind.__doc__)
        yield field_table(fields(kind))


def steps() -> Iterator[str]:
    """Options of the steps that take some."""
    yield "What a step takes under `options`, by its objective; all other keys stand in [experiments](experiments.md)."
    for objective, config in sorted({**OPTIONS, "distill": DistillOptions}.items()):
        yield f"### {objective}"
        yield from options(config)


def contract(kind: str) -> Iterator[str]:
    """What the object must do that a component of a kind builds."""
    module, _, name = CONTRACTS[kind].partition(":")
    built = getattr(import_module(f"phasegate.{module}"), name)
    yield f"**What it builds** (`phasegate.{module}.{name}`): {prose(built.__doc__)}"
    methods = [(name, one) for name, one in vars(built).items() if inspect.isfunction(inspect.unwrap(callable_of(one)))]
    shown = [(name, callable_of(one)) for name, one in methods if not name.startswith("_") or name == "__call__"]
    listed = [
        f"* `{name}{signature(one)}`" + (f": {flat(prose(one.__doc__))}" if one.__doc__ else "") for name, one in shown
    ]
    yield "\n".join(listed)


def spec_fields(spec: type[Component]) -> Iterator[str]:
    """The fields of a spec beyond those of every component."""
    if own := own_fields(spec):
        yield f"**What its `{spec.__name__}` says besides**:"
        yield field_table(own)


def own_fields(spec: type[Component]) -> tuple[Field[Any], ...]:
    """The fields that a kind adds."""
    return tuple(item for item in fields(spec) if item.name not in {one.name for one in fields(Component)})


def component(entry: Entry) -> Iterator[str]:
    """A built-in component: what it is, where it comes from, its options."""
    spec = entry.component
    yield f"### {entry.kind}/{entry.name}"
    yield flat(spec.summary)
    told = [f"{item.name.replace('_', ' ')}: {shown(getattr(spec, item.name))}" for item in own_fields(type(spec))]
    yield "; ".join([f"Revision {spec.revision}", *told]) + "."
    if text := entry.load().__doc__:
        yield prose(text)
    config = entry.config_class()
    if config is not None:
        yield from options(config)


def options(config: type) -> Iterator[str]:
    """The options of a component or a step: what its dataclass says of them, and types with defaults."""
    found = describe(config)
    if not found:
        yield "It takes no options."
        return
    yield f"**Options**: {documented(config)}"
    rows = [
        (f"`{one.name}`", code(one.type), "must be given" if one.default is None else code(one.default))
        for one in found
    ]
    yield table(("option", "type", "default"), rows)


def documented(config: type) -> str:
    """What a dataclass of options says of them, after what those say that it inherits from."""
    classes = [one for one in reversed(config.__mro__) if is_dataclass(one) and has_docstring(one)]
    return "\n\n".join(prose(one.__doc__) for one in classes)


def has_docstring(kind: type) -> bool:
    """Whether a dataclass has a docstring of its own: without one it gets its signature for it."""
    text = vars(kind).get("__doc__") or ""
    return bool(text) and not text.startswith(f"{kind.__name__}(")


def field_table(found: tuple[Field[Any], ...]) -> str:
    """Fields with types and defaults."""
    return table(
        ("field", "type", "default"), [(f"`{item.name}`", code(str(item.type)), default_of(item)) for item in found]
    )


def default_of(item: Field[Any]) -> str:
    """A field's default as text."""
    if item.default is not MISSING:
        return code(repr(item.default))
    return "must be given" if item.default_factory is MISSING else code(repr(item.default_factory()))


def callable_of(value: Any) -> Any:
    """The function in a class's namespace, also of a classmethod or staticmethod."""
    return value.__func__ if isinstance(value, classmethod | staticmethod) else value


def signature(function: Callable[..., Any]) -> str:
    """A signature as it is written."""
    return str(inspect.signature(function)).replace("'", "")


def prose(text: str | None) -> str:
    """A docstring as Markdown."""
    return re.sub(r"``(.+?)``", r"`\1`", inspect.cleandoc(text or ""), flags=re.DOTALL)


def flat(text: str) -> str:
    """A text as one line."""
    return " ".join(text.split())


def shown(value: Any) -> str:
    """A field of a spec as people read it."""
    if isinstance(value, tuple):
        return ", ".join(f"`{one}`" for one in value) or "none"
    return code(repr(value))


def code(text: str) -> str:
    """A text as code, also in a table."""
    return f"`{text}`"


def fenced(text: str) -> str:
    """A text as a block of Python."""
    return f"```python\n{text}\n```"


def table(columns: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    """A table; bars in cells are escaped, as tables want it of code too."""
    lines = [columns, ("---",) * len(columns), *(tuple(cell.replace("|", "\\|") for cell in row) for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    sys.stdout.write(f"{PAGE} is written\n")
