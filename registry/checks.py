"""Refuse at load what pluggy would let pass: misspelt, undecorated, unfillable and never-run hooks, and bad specs."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterable
from dataclasses import fields, is_dataclass
from typing import Any

import pluggy

from .components import KINDS, Component
from .errors import PluginError
from .hookspecs import HOOKS, PROJECT
from .suggest import did_you_mean

_PREFIX = f"{PROJECT}_"
_NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")
_TARGET = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*(\.[^\W\d]\w*)*")


def invalid(label: str, why: str) -> PluginError:
    """Return the error for a plugin that breaks a rule; ``label`` is ``dist:entry version``."""
    return PluginError(f"{label} is not a valid plugin: {why}")


def _not_plain(label: str, name: str) -> PluginError:
    return invalid(label, f"{name} carries @hookimpl but is not a plain function; pluggy would never call it.")


def check_hooks(manager: pluggy.PluginManager, plugin: object, label: str) -> None:
    """Check every attribute of ``plugin`` that is a hook or looks like one, before it is registered."""
    for name in dir(plugin):
        marks = manager.parse_hookimpl_opts(plugin, name)
        if marks is not None:
            hook = marks.get("specname") or name
            if hook not in HOOKS:
                raise invalid(label, f"there is no hook '{hook}'.{did_you_mean(hook, HOOKS)}")
            _check_marks(hook, dict(marks), label)
            _check_function(hook, getattr(plugin, name), bool(marks.get("wrapper")), label)
        elif name.startswith(_PREFIX):
            _check_unmarked(name, inspect.getattr_static(plugin, name), label)


def _check_unmarked(name: str, value: object, label: str) -> None:
    if inspect.ismodule(value) or not (callable(value) or isinstance(value, (property, staticmethod, classmethod))):
        return
    if hasattr(value, f"{PROJECT}_impl"):
        raise _not_plain(label, name)
    near = "" if name in HOOKS else did_you_mean(name, HOOKS)
    raise invalid(label, f"{name} looks like a hook but lacks @hookimpl.{near}")


def _check_marks(hook: str, marks: dict[str, Any], label: str) -> None:
    if marks.get("hookwrapper"):
        raise invalid(
            label, f"{hook} is an old-style hookwrapper; write @hookimpl(wrapper=True) and return the result."
        )
    if marks.get("wrapper") and hook == "phasegate_components":
        raise invalid(label, f"{hook} cannot be a wrapper; components of other plugins are not to be changed.")


def _check_function(hook: str, function: Callable[..., Any], wrapper: bool, label: str) -> None:
    if not (inspect.isfunction(function) or inspect.ismethod(function)):
        raise _not_plain(label, hook)  # pluggy before 1.7 takes other routines for hooks too
    signature = inspect.signature(function)
    shown = f"{hook}({', '.join(str(p.replace(annotation=p.empty)) for p in signature.parameters.values())})"
    for parameter in signature.parameters.values():
        if parameter.default is not parameter.empty or parameter.kind is parameter.KEYWORD_ONLY:
            raise invalid(
                label,
                f"{shown}: a hook parameter has no default and is not keyword-only; pluggy would never fill it.",
            )
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            raise invalid(label, f"{shown}: a hook names its parameters; pluggy would never fill *args or **kwargs.")
        if parameter.name not in HOOKS[hook]:
            takes = f"the parameter '{HOOKS[hook][0]}'" if HOOKS[hook] else "no parameter"
            raise invalid(label, f"{shown}: {hook} takes {takes}, not '{parameter.name}'.")
    plain = inspect.unwrap(function)
    if inspect.iscoroutinefunction(plain) or inspect.isasyncgenfunction(plain):
        raise invalid(label, f"{hook} is async; nothing would await it. Write a plain function.")
    generator = inspect.isgeneratorfunction(plain)
    if wrapper and not generator:
        raise invalid(label, f"{hook} is a wrapper without a yield; write `result = yield` where the others run.")
    if generator and not wrapper and hook != "phasegate_components":
        raise invalid(
            label, f"{hook} yields but is no wrapper; its body would never run. Write @hookimpl(wrapper=True)."
        )


def check_components(offered: object, label: str) -> tuple[Component, ...]:
    """Return what ``phasegate_components`` gave as a tuple of sound components with distinct names."""
    if not isinstance(offered, Iterable):
        raise invalid(label, f"phasegate_components gave {offered!r}; yield components or return a list of them.")
    components = tuple(offered)
    seen: set[tuple[str, str]] = set()
    for component in components:
        _check_component(component, label)
        key = (component.kind, component.name)
        if key in seen:
            raise invalid(label, f"it offers the {component.kind} '{component.name}' twice.")
        seen.add(key)
    return components


def _check_component(component: object, label: str) -> None:
    if not isinstance(component, Component) or not isinstance(getattr(component, "kind", None), str):
        raise invalid(
            label, f"phasegate_components yielded {component!r}, which is not a component such as RouterSpec(…)."
        )
    expected = KINDS.get(component.kind)
    if expected is not None and not isinstance(component, expected):
        raise invalid(label, f"the {component.kind} '{component.name}' must be a {expected.__name__}.")
    if not _is_name(component.name):
        raise invalid(label, f"{component.name!r} is not a component name: use a-z, 0-9 and single hyphens.")
    what = f"the {component.kind} '{component.name}'"
    if not (callable(component.target) or _is_target(component.target)):
        raise invalid(label, f"{what} has the target {component.target!r}; write 'module:attribute'.")
    if not (component.config is None or _is_target(component.config) or _is_config(component.config)):
        raise invalid(label, f"{what} has the config {component.config!r}; write 'module:Dataclass'.")
    if type(component.revision) is not int or component.revision < 1:
        raise invalid(label, f"{what} has the revision {component.revision!r}; revisions count 1, 2, 3, …")
    for item in fields(component):
        # A field that defaults to a tuple holds names; a bare string would be read letter by letter.
        if isinstance(item.default, tuple):
            value = getattr(component, item.name)
            if not isinstance(value, tuple) or not all(isinstance(name, str) for name in value):
                raise invalid(label, f"{what} has {item.name}={value!r}; write a tuple of names.")
    for former in component.replaces:
        if not _is_name(former):
            raise invalid(label, f"{what} replaces {former!r}, which is not a component name.")


def _is_name(value: object) -> bool:
    return isinstance(value, str) and _NAME.fullmatch(value) is not None


def _is_target(value: object) -> bool:
    return isinstance(value, str) and _TARGET.fullmatch(value) is not None


def _is_config(value: object) -> bool:
    return isinstance(value, type) and is_dataclass(value)
