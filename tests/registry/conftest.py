"""Plugins that the tests of the registry install."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

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
def install_router(install_plugin: Any) -> Callable[..., Path]:
    """Install a plugin that offers the router ``name`` (default ``switch``) with four options."""

    def write(dist: str, name: str = "switch", **more: object) -> Path:
        source = ROUTER.format(name=name, package=dist.replace("-", "_"))
        return install_plugin(dist, source, files={"routers.py": ROUTERS}, **more)

    return write
