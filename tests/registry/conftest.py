"""Fake distributions: real metadata on a real path, no installer."""

from __future__ import annotations

import base64
import hashlib
import importlib
import json
import sys
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Protocol

import pytest


class Install(Protocol):
    """Write a distribution whose plugin module holds ``source`` and put it on the path."""

    def __call__(
        self,
        dist: str,
        source: str = "",
        *,
        version: str = "1.0",
        entry: str | None = None,
        group: str = "phasegate.plugins.v1",
        requires: Sequence[str] = (),
        files: Mapping[str, str] = {},
        editable: bool = False,
        record: bool = True,
    ) -> Path: ...


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder on the path for one test; what is imported from it is forgotten afterwards."""
    folder = tmp_path / "site"
    folder.mkdir()
    monkeypatch.syspath_prepend(str(folder))
    yield folder
    for name, module in list(sys.modules.items()):
        if str(getattr(module, "__file__", None) or "").startswith(str(tmp_path)):
            del sys.modules[name]


@pytest.fixture
def install(site: Path) -> Install:
    def write(
        dist: str,
        source: str = "",
        *,
        version: str = "1.0",
        entry: str | None = None,
        group: str = "phasegate.plugins.v1",
        requires: Sequence[str] = (),
        files: Mapping[str, str] = {},
        editable: bool = False,
        record: bool = True,
    ) -> Path:
        package = dist.lower().replace("-", "_").replace(".", "_")
        code = {f"{package}/__init__.py": "", f"{package}/plugin.py": textwrap.dedent(source)}
        code |= {f"{package}/{name}": textwrap.dedent(text) for name, text in files.items()}
        metadata = [f"Name: {dist}", f"Version: {version}", *(f"Requires-Dist: {text}" for text in requires)]
        told = {
            "METADATA": "\n".join(["Metadata-Version: 2.1", *metadata, ""]),
            "entry_points.txt": f"[{group}]\n{entry or dist.rpartition('-')[2]} = {package}.plugin\n",
        }
        if editable:
            told["direct_url.json"] = json.dumps({"url": site.as_uri(), "dir_info": {"editable": True}})
        info = f"{package}-{version}.dist-info"
        if record:
            lines = [f"{path},{_digest(text)},{len(text)}" for path, text in code.items()]
            told["RECORD"] = "\n".join([*lines, f"{info}/RECORD,,", ""])
        for path, text in {**code, **{f"{info}/{name}": text for name, text in told.items()}}.items():
            target = site / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(text, encoding="utf-8")
        importlib.invalidate_caches()
        return site / package

    return write


def _digest(text: str) -> str:
    raw = hashlib.sha256(text.encode()).digest()
    return f"sha256={base64.urlsafe_b64encode(raw).rstrip(b'=').decode()}"


ROUTER = """
    from phasegate import RouterSpec, hookimpl

    @hookimpl
    def phasegate_components():
        yield RouterSpec(name="{name}", target="{package}.routers:Switch", config="{package}.routers:SwitchConfig")
"""

ROUTERS = """
    from __future__ import annotations
    from dataclasses import dataclass, field

    @dataclass(frozen=True, slots=True, kw_only=True)
    class Inner:
        depth: int = 1

    @dataclass(frozen=True, slots=True, kw_only=True)
    class SwitchConfig:
        experts: int
        capacity: float = 1.25
        betas: tuple[float, float] = (0.9, 0.95)
        inner: Inner = field(default_factory=Inner)

        def __post_init__(self):
            if self.experts < 1:
                raise ValueError("experts must be at least 1")

    class Switch:
        def __init__(self, config, **context):
            self.config, self.context = config, context
"""


@pytest.fixture
def install_router(install: Install) -> Callable[..., Path]:
    """Install a plugin that offers the router ``name`` (default ``switch``) with four options."""

    def write(dist: str, name: str = "switch", **more: object) -> Path:
        source = ROUTER.format(name=name, package=dist.replace("-", "_"))
        return install(dist, source, files={"routers.py": ROUTERS}, **more)  # type: ignore[arg-type]

    return write
