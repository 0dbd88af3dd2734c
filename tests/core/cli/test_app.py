"""The command: light, lazy, and clear about how it ends."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from typing import Any

import pytest
import typer
from phasegate import ConfigError
from phasegate.core.cli import app

HEAVY = ("torch", "transformers", "datasets", "trl", "pydantic", "yaml", "lm_eval", "numpy")


def python(code: str, **options: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, **options)


def loaded_after(arguments: list[str]) -> str:
    """Return which heavy modules the command imported."""
    code = (
        "import sys\nfrom phasegate.core.cli.app import main\n"
        f"try:\n    main({arguments!r})\nexcept SystemExit as ended:\n    assert not ended.code, ended.code\n"
        f"print('LOADED', [name for name in {HEAVY!r} if name in sys.modules])"
    )
    done = python(code)
    assert done.returncode == 0, done.stderr
    return done.stdout.rpartition("LOADED ")[2].strip()


@pytest.mark.parametrize("arguments", [["--help"], ["--version"]])
def test_the_help_imports_nothing_heavy(arguments: list[str]) -> None:
    assert loaded_after(arguments) == "[]"


@pytest.mark.parametrize("arguments", [["init", "--help"], ["plan", "--help"], ["train", "--help"]])
def test_the_help_of_a_subcommand_imports_only_what_typer_needs(arguments: list[str]) -> None:
    assert loaded_after(arguments) in {"[]", "['pydantic']"}


@pytest.mark.parametrize("arguments", [["components"], ["plugins"]])
def test_listing_imports_no_torch(arguments: list[str]) -> None:
    assert "torch" not in loaded_after(arguments)
    assert "transformers" not in loaded_after(arguments)


def test_the_help_reads_no_module_of_the_platform_but_those_of_the_command_itself() -> None:
    """Seconds depend on what else the machine does; what is read does not."""
    code = (
        "import sys\nfrom phasegate.core.cli.app import main\n"
        "try:\n    main(['--help'])\nexcept SystemExit:\n    pass\n"
        "print('LOADED', sorted(name for name in sys.modules if name.startswith('phasegate.core')))"
    )
    loaded = python(code).stdout.rpartition("LOADED ")[2].strip()
    assert loaded == "['phasegate.core', 'phasegate.core.cli', 'phasegate.core.cli.app', 'phasegate.core.cli.printing']"


def test_help_lists_every_subcommand_with_its_line() -> None:
    shown = python("from phasegate.core.cli.app import main; main(['--help'])").stdout
    for name, subcommand in app.SUBCOMMANDS.items():
        assert f" {name} " in shown
        assert subcommand.help.split(":")[0] in shown


@pytest.mark.parametrize("name", app.SUBCOMMANDS)
def test_every_subcommand_can_be_loaded(name: str) -> None:
    loaded = app.SUBCOMMANDS[name].load()
    assert isinstance(loaded, typer.Typer) if app.SUBCOMMANDS[name].group else callable(loaded)


def test_an_unknown_subcommand_names_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        app.main(["trian"])
    assert ended.value.code == 2
    assert "train" in capsys.readouterr().err


@pytest.fixture
def ends(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[[BaseException], Any]:
    """Return the exit code and what stood on stderr when a subcommand raises."""

    def ends(error: BaseException) -> tuple[Any, str]:
        def command() -> None:
            raise error

        class Raising(app.Subcommand):
            def load(self) -> Any:
                return command

        subcommands: Mapping[str, app.Subcommand] = {"fall": Raising(help="Fall.", module="none")}
        monkeypatch.setattr(app, "SUBCOMMANDS", subcommands)
        with pytest.raises(SystemExit) as ended:
            app.main(["fall"])
        return ended.value.code, capsys.readouterr().err

    return ends


def test_a_mistake_is_one_sentence_and_exit_code_two(ends: Callable[..., Any]) -> None:
    assert ends(ConfigError("x.yaml:3: no.")) == (2, "error: x.yaml:3: no.\n")


def test_a_note_of_a_plugin_is_told_with_the_mistake(ends: Callable[..., Any]) -> None:
    error = ConfigError("no.")
    error.add_note("raised by plugin lego:lego 1.0")
    assert ends(error) == (2, "error: no.\nraised by plugin lego:lego 1.0\n")


def test_a_full_disk_is_one_sentence_and_exit_code_two(ends: Callable[..., Any]) -> None:
    code, told = ends(OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "store/a.safetensors"))
    assert code == 2
    assert told.startswith("error: the disk is full (while writing store/a.safetensors); free some space")
    assert told.count("\n") == 1


def test_a_full_disk_is_recognised_in_what_a_library_makes_of_it(ends: Callable[..., Any]) -> None:
    wrapped = RuntimeError('Io(Os { code: 28, kind: StorageFull, message: "No space left on device" })')
    outer = RuntimeError("could not save")
    outer.__cause__ = wrapped
    assert ends(outer)[0] == 2


def test_ctrl_c_ends_with_130(ends: Callable[..., Any]) -> None:
    assert ends(KeyboardInterrupt())[0] == 130


def test_a_fault_of_the_platform_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    code = (
        "from phasegate.core.cli import app\n"
        "def command(): return 1 / 0\n"
        "app.Subcommand.load = lambda self: command\n"
        "app.main(['train'])\n"
    )
    done = python(code)
    assert done.returncode == 1
    assert "ZeroDivisionError" in done.stderr
    assert "Traceback" in done.stderr


def test_a_reader_that_goes_away_is_no_error() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "wb") as closed:
        done = subprocess.run(
            [sys.executable, "-c", "from phasegate.core.cli.app import main; main(['components', '--json'])"],
            stdout=closed,
            stderr=subprocess.PIPE,
            text=True,
            timeout=60,
        )
    assert done.stderr == ""
    assert done.returncode == 1
