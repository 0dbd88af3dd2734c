from __future__ import annotations

import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from phasegate.testing.author.names import names_of
from phasegate.testing.author.package import files_of
from phasegate.testing.author.parts import PARTS

Platform = Callable[..., int]


def test_a_new_plugin_is_written_and_the_next_commands_are_said(
    platform: Platform, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert platform("plugin", "new", "phasegate-lego", "--kind", "router", "--kind", "gate", "--hook", "on_step") == 0
    assert capsys.readouterr().out.splitlines() == [
        "phasegate-lego is written: 15 files. Next:",
        "  pip install -e phasegate-lego",
        "  platform plugin check phasegate-lego",
        "  platform train ncas-nano --plugins phasegate-lego --set model.router=cosine",
    ]
    assert (tmp_path / "phasegate-lego" / "src" / "phasegate_lego" / "gates.py").is_file()


def test_a_new_plugin_goes_where_it_is_told_to(platform: Platform, tmp_path: Path) -> None:
    assert platform("plugin", "new", "phasegate-lego", "--hook", "on_end", "--output", "other place") == 0
    assert [path.name for path in tmp_path.iterdir()] == ["other place"]


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (("phasegate", "--kind=router"), "'phasegate' is a name of the platform's own"),
        (("phasegate-lego",), "A plugin offers components or implements hooks"),
        (("phasegate-lego", "--kind=ruter"), "There is no kind 'ruter'. Did you mean 'router'?"),
        (("phasegate-lego", "--hook=on_stop"), "There is no hook 'on_stop' to begin with."),
        (("phasegate-lego", "--kind=router", "-o", "."), ". exists already and is not touched"),
    ],
)
def test_a_mistake_is_one_sentence_and_leaves_nothing(
    arguments: tuple[str, ...], why: str, platform: Platform, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert platform("plugin", "new", *arguments) == 2
    assert capsys.readouterr().err.startswith(f"error: {why}")
    assert list(tmp_path.iterdir()) == []


def test_writing_a_plugin_imports_nothing_heavy(tmp_path: Path) -> None:
    code = (
        "import sys\nfrom phasegate.core.cli.app import main\n"
        "try:\n    main(['plugin', 'new', 'phasegate-lego', '--kind', 'router'])\n"
        "except SystemExit as end:\n    assert not end.code\n"
        "print({'torch', 'transformers', 'pytest', 'datasets', 'numpy'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "set()"


@pytest.fixture
def everything(install_plugin: Callable[..., Path]) -> dict[str, str]:
    """A plugin with a component of every kind, installed as far as metadata can tell; its files."""
    names = names_of("phasegate-lego")
    texts, source = files_of(names, list(PARTS), []), f"src/{names.package}/"
    modules = {path.removeprefix(source): text for path, text in texts.items() if path.startswith(source)}
    install_plugin(names.dist, modules.pop("plugin.py"), files=modules)
    return texts


def uses(texts: dict[str, str], command: str) -> list[list[str]]:
    """The arguments of the commands in a readme that begin with ``platform command``."""
    lines = re.findall(rf"^platform ({command} .*)$", texts["README.md"], re.MULTILINE)
    return [shlex.split(line)[1:] for line in lines]


def test_the_commands_of_the_readme_use_every_component_at_once(
    everything: dict[str, str], platform: Platform, capsys: pytest.CaptureFixture[str]
) -> None:
    train = uses(everything, "train")
    assert len(train) == len(PARTS) - 1
    # A plan finds every component and reads every option, and trains nothing.
    settings = [word for arguments in train for word in arguments[arguments.index("--set") :]]
    assert platform("plan", "ncas-nano", "--plugins", "phasegate-lego", *settings) == 0, capsys.readouterr().err
    told = capsys.readouterr().out
    kinds = ("gate/phasegate-lego:repetition", "loss/phasegate-lego:entropy-floor", "phase/phasegate-lego:cooldown")
    assert [name for name in kinds if name not in told] == []


@pytest.mark.slow
def test_the_search_space_is_one_of_a_study(
    everything: dict[str, str], platform: Platform, capsys: pytest.CaptureFixture[str]
) -> None:
    ((*arguments,),) = uses(everything, "study")
    assert platform("study", *arguments) == 0, capsys.readouterr().err
    assert "without-specialization" in capsys.readouterr().out
