"""What tests of several floors are made of."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"
# Two test processes share two cores; a second thread in each would only get in the way.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
import torch
from torch import nn


class Experts(nn.Module):
    """Stacked weights under the names that the platform knows."""

    def __init__(self, gate_up: torch.Tensor, down: torch.Tensor) -> None:
        super().__init__()
        self.num_experts = len(gate_up)
        self.gate_up_proj, self.down_proj = nn.Parameter(gate_up), nn.Parameter(down)


@pytest.fixture
def stacked_experts() -> Callable[..., nn.Module]:
    """A model of nothing but stacked experts: ``stacked_experts((gate_up, down), ...)``, shape (E, R, C) each."""

    def make(*layers: tuple[torch.Tensor, torch.Tensor]) -> nn.Module:
        model = nn.Module()
        model.layers = nn.ModuleList()
        for gate_up, down in layers:
            layer = nn.Module()
            layer.experts = Experts(gate_up, down)
            model.layers.append(layer)
        return model

    return make


#: What an attacker would have a terminal, a browser, a template engine or a Markdown reader obey.
HOSTILE = (
    "<script>alert(1)</script></style><img src=x onerror=alert(1)>{{7*7}}{% raw %}[bold]x[/bold][link=https://e.vil]y"
    "[/link]:skull:\x1b[2J\x1b[31m\x1b]8;;https://e.vil\x1b\\z\x1b]8;;\x1b\\\x9b2J\u202egpj.exe\u2066\x00\r"
    "![i](javascript:alert(1)) | `x` **b** \x07\x08\u2028\ud800"
)
_MEANT = "\xa0\u200c\u200d"  # a blank, and the joiners that scripts and emoji are written with


@pytest.fixture
def hostile() -> str:
    """A text in which everything would act if it were not shown as it is spelt."""
    return HOSTILE


@pytest.fixture
def acting() -> Callable[[str], list[str]]:
    """The characters of an output that would act on a terminal, or turn or hide what it shows."""

    def found(text: str) -> list[str]:
        return sorted({sign for sign in text if sign != "\n" and not sign.isprintable() and sign not in _MEANT})

    return found


@pytest.fixture
def platform(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """Run the command in this process, below ``tmp_path``; the exit code."""
    from phasegate.core.cli.app import main

    monkeypatch.chdir(tmp_path)

    def run(*arguments: str) -> int:
        try:
            main(arguments)
        except SystemExit as stop:
            return int(stop.code or 0)
        return 0

    return run
