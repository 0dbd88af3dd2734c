"""A package that was installed but never asked for cannot act through what it says of itself."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from phasegate.core.cli.app import main

Acting = Callable[[str], list[str]]

PLUGIN = """
from phasegate import RouterSpec, hookimpl

@hookimpl
def phasegate_components():
    yield RouterSpec(
        name="evil", target="phasegate_evil.own:Own", config="phasegate_evil.own:Config", summary={text!r}
    )
"""
OWN = """
from dataclasses import dataclass

@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    {text!r}

    size: {text!r} = {text!r}


class Own:
    {text!r}
"""


@pytest.fixture
def said(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    def run(*arguments: str, code: int = 0) -> str:
        with pytest.raises(SystemExit) as ended:
            main(arguments)
        told = capsys.readouterr()
        assert (ended.value.code or 0) == code, told.err
        return told.out + told.err

    return run


@pytest.mark.parametrize(
    "command",
    [
        ("plugins",),
        ("plugins", "-p", "phasegate-evil"),
        ("plugins", "--json", "-p", "phasegate-evil"),
        ("plugins", "show", "phasegate-evil"),
        ("plugins", "hooks", "-p", "phasegate-evil"),
        ("components", "-p", "phasegate-evil"),
        ("components", "--json", "-p", "phasegate-evil"),
        ("components", "show", "router/evil", "-p", "phasegate-evil"),
        ("components", "show", "router/evil", "-p", "phasegate-evil", "--json"),
    ],
)
def test_what_a_package_says_of_itself_is_shown_as_it_is_spelt(
    command: tuple[str, ...], install_plugin: Any, said: Callable[..., str], hostile: str, acting: Acting
) -> None:
    own = OWN.format(text=hostile.replace("\ud800", ""))
    package = install_plugin("phasegate-evil", PLUGIN.format(text=hostile), files={"own.py": own}, version="1.0")
    metadata = package.with_name("phasegate_evil-1.0.dist-info") / "METADATA"
    told = "".join(hostile.replace("\ud800", "").splitlines())
    metadata.write_text(f"{metadata.read_text()}Summary: {told}\nHome-page: {told}\n", encoding="utf-8")
    text = said(*command)
    assert acting(text) == [] and "phasegate-evil" in text and "☠" not in text
    if "--json" in command:
        json.loads(text)


def test_an_error_that_quotes_a_package_is_shown_as_it_is_spelt(
    install_plugin: Any, said: Callable[..., str], hostile: str, acting: Acting
) -> None:
    install_plugin("phasegate-evil", f"raise RuntimeError({hostile!r})")
    text = said("plugins", "-p", "phasegate-evil", code=2)
    assert acting(text) == [] and "\\u001b[2J" in text and text.startswith("error: ")
