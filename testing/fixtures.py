"""The pytest plugin: what tests of a plugin are made of. Loaded in every run of pytest, so it imports nothing heavy."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import pytest

if TYPE_CHECKING:
    from ..registry.plugins import Plugins
    from .nano import NanoRun
    from .recording import HookRecord


class InstallPlugin(Protocol):
    """Writes a distribution and puts it on the path; see ``distributions.Site.install``."""

    def __call__(
        self,
        dist: str,
        source: str = "",
        *,
        version: str = "1.0",
        entry: str | None = None,
        group: str = "phasegate.plugins.v1",
        requires: Sequence[str] = (),
        files: Mapping[str, str] | None = None,
        editable: bool = False,
        record: bool = True,
    ) -> Path: ...


class LoadPlugins(Protocol):
    """Loads plugins by name, or objects with hooks as if each were the module of a plugin."""

    def __call__(self, *plugins: str | object, require: Sequence[str] = ()) -> Plugins: ...


class RecordHooks(Protocol):
    """Records the calls of one manager, or of every manager made from now on."""

    def __call__(self, plugins: Plugins | None = None) -> list[HookRecord]: ...


class RunNano(Protocol):
    """Trains the nano experiment; see ``nano.run_nano``."""

    def __call__(
        self,
        *,
        plugins: Sequence[str] = (),
        overrides: Sequence[str] = (),
        experiment: Mapping[str, Any] | None = None,
    ) -> NanoRun: ...


@pytest.fixture
def plugin_site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder on the path for one test; what is imported from below ``tmp_path`` is forgotten afterwards."""
    folder = tmp_path / "site"
    folder.mkdir()
    monkeypatch.syspath_prepend(str(folder))
    yield folder
    for name, module in list(sys.modules.items()):
        if str(getattr(module, "__file__", None) or "").startswith(str(tmp_path)):
            del sys.modules[name]


@pytest.fixture
def install_plugin(plugin_site: Path) -> InstallPlugin:
    """Install a fake distribution: ``install_plugin("my-lego", source, files={"routers.py": …})``.

    Its modules, METADATA, entry_points.txt and RECORD lie below ``tmp_path`` and are found as those of any installed
    package are, by this process and by processes that it starts with the same path.
    """
    from .distributions import Site

    return Site(folder=plugin_site).install


@pytest.fixture
def plugins(plugin_site: Path, monkeypatch: pytest.MonkeyPatch) -> LoadPlugins:
    """Load plugins into a manager of their own: ``plugins("my-lego", some_module)``.

    Names are requests, as after ``--plugins``; any other object is taken for the module of a plugin ``object-1``,
    ``object-2``, … in the order given, and must carry its hooks as a module does.
    """
    numbers = itertools.count(1)

    def load(*given: str | object, require: Sequence[str] = ()) -> Plugins:
        from ..registry.plugins import Plugins
        from .distributions import Site

        requests = []
        for plugin in given:
            if isinstance(plugin, str):
                requests.append(plugin)
                continue
            name = f"object-{next(numbers)}"
            module = f"{name.replace('-', '_')}_given"
            monkeypatch.setitem(sys.modules, module, plugin)
            Site(folder=plugin_site).install(name, entry="given", module=module)
            requests.append(name)
        return Plugins.load(requests, require)

    return load


@pytest.fixture
def record_hooks(monkeypatch: pytest.MonkeyPatch) -> RecordHooks:
    """Record calls of hooks: ``calls = record_hooks(manager)``, or ``record_hooks()`` for every manager that is loaded
    from now on in this process, such as that of ``nano_run``.

    The list grows as hooks are called, and keeps their contexts alive.
    """

    def start(plugins: Plugins | None = None) -> list[HookRecord]:
        from ..registry.plugins import Plugins
        from .recording import record

        calls: list[HookRecord] = []
        if plugins is not None:
            record(plugins, calls)
            return calls
        original: Callable[..., Plugins] = Plugins.load

        def load(requests: Sequence[str] = (), require: Sequence[str] = ()) -> Plugins:
            loaded = original(requests, require)
            record(loaded, calls)
            return loaded

        monkeypatch.setattr(Plugins, "load", load)
        return calls

    return start


@pytest.fixture
def nano_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunNano:
    """Train a tiny experiment through the command: ``nano_run(plugins=["my-lego"], overrides=["run.seed=1"])``.

    One phase of two optimiser steps with a two-layer model, in about a second once torch is imported; ``experiment``
    adds phases, gates or losses. Runs of one test share a store.
    """

    def run(
        *,
        plugins: Sequence[str] = (),
        overrides: Sequence[str] = (),
        experiment: Mapping[str, Any] | None = None,
    ) -> NanoRun:
        from .nano import run_nano

        monkeypatch.chdir(tmp_path)
        return run_nano(tmp_path / "nano", plugins=plugins, overrides=overrides, experiment=experiment)

    return run
