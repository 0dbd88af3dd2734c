"""The command ``platform``: its subcommands by name, imported only when they run, and how errors end it."""

from __future__ import annotations

import errno
import importlib
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, NoReturn

import typer

from ...registry.errors import PhasegateError
from .printing import echo, plain_warnings

EXIT_MISTAKE = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Subcommand:
    """One subcommand: its line in the help, its module, and the function or sub-application in it.

    ``folder`` is where the module lies in the package.
    """

    help: str
    module: str
    name: str = "command"
    group: bool = False
    folder: str = "core.cli"

    def load(self) -> Any:
        """Import the module and return what implements the subcommand."""
        package = f"{__package__}".partition(".")[0]  # not of __name__, which is __main__ under python -m
        return getattr(importlib.import_module(f"{package}.{self.folder}.{self.module}"), self.name)


SUBCOMMANDS: Mapping[str, Subcommand] = {
    "train": Subcommand(help="Run an experiment: train its phases and judge each.", module="train"),
    "plan": Subcommand(help="Show what a run would do and cost, and train nothing.", module="plan"),
    "verify": Subcommand(help="Prove on small steps that every setting of an experiment acts.", module="verify"),
    "init": Subcommand(help="Write an experiment file to start from.", module="init"),
    "components": Subcommand(
        help="List what an experiment can name.", module="components", name="components_app", group=True
    ),
    "plugins": Subcommand(help="List and examine plugins.", module="plugins", name="plugins_app", group=True),
    # The kit for authors is a floor of its own, above this one: it is named here and known to nothing else, so that the
    # core runs without it, as it runs without any plugin.
    "plugin": Subcommand(
        help="Write a plugin of your own, and check it.",
        module="command",
        name="plugin_app",
        group=True,
        folder="testing.author",
    ),
    "ablation": Subcommand(help="Show what a trained model loses without each of its experts.", module="ablation"),
    "compare": Subcommand(help="Pose a prompt to the model after every phase of a run.", module="compare"),
    "changes": Subcommand(help="Show what each phase of a run changed in the weights.", module="changes"),
    "frontier": Subcommand(
        help="Draw what a safety phase trades: over-refusal for harmful compliance.", module="frontier"
    ),
    "eval": Subcommand(help="Measure benchmarks on a stage, a run or any Hugging Face model.", module="eval"),
    "study": Subcommand(help="Compare orders of phases, or search settings, over one store.", module="study"),
    "report": Subcommand(
        help="Write one page on a run or a study: the answer first, the evidence after.", module="report"
    ),
    "export": Subcommand(help="Write a trained stage for plain transformers, or packed.", module="export"),
    "deltas": Subcommand(help="Write what leads from each expert to its neighbours, as files.", module="deltas"),
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command and exit: 0 when it did its work, 2 for a mistake that its user can mend, 130 after Ctrl-C.

    A mistake is told on stderr in a sentence; only a fault of the platform shows a traceback, with exit code 1.
    Typer itself ends quietly on Ctrl-C and on a broken pipe while a subcommand runs.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    try:
        with plain_warnings():
            application(given)(args=given, prog_name="platform")
    except PhasegateError as error:
        _fail(str(error), getattr(error, "__notes__", ()))
    except KeyboardInterrupt:
        raise SystemExit(130) from None
    except Exception as error:
        full = next(filter(_is_full, _chain(error)), None)
        if full is None:
            raise
        where = f" (while writing {full.filename})" if isinstance(full, OSError) and full.filename else ""
        _fail(f"the disk is full{where}; free some space and run the same command again, what was done is kept.")


def application(arguments: Sequence[str]) -> typer.Typer:
    """Return the command with the one subcommand that ``arguments`` name imported; the others are only named."""
    app = typer.Typer(
        name="platform",
        help="Train Mixture-of-Experts language models through a curriculum of measured phases.",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
    )

    @app.callback()
    def root(
        version: Annotated[
            bool, typer.Option("--version", is_eager=True, callback=_print_version, help="Show the version.")
        ] = False,
    ) -> None:
        pass

    wanted = next((word for word in arguments if not word.startswith("-")), None)
    for name, subcommand in SUBCOMMANDS.items():
        if name != wanted:
            app.command(name, help=subcommand.help)(_unloaded)
        elif subcommand.group:
            app.add_typer(subcommand.load(), name=name, help=subcommand.help)
        else:
            app.command(name, short_help=subcommand.help)(subcommand.load())
    return app


def _unloaded() -> None:
    raise AssertionError("a subcommand was called that the arguments do not name")


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        echo(f"phasegate {version('phasegate')}")
        raise typer.Exit


def _fail(sentence: str, notes: Sequence[str] = ()) -> NoReturn:
    lines = "\n".join([sentence, *notes])
    echo(f"error: {lines}", err=True)
    raise SystemExit(EXIT_MISTAKE)


def _chain(error: BaseException) -> Iterator[BaseException]:
    """Yield an exception and what it was raised from; libraries wrap the one that knows."""
    seen: BaseException | None = error
    while seen is not None:
        yield seen
        seen = seen.__cause__ or seen.__context__


def _is_full(error: BaseException) -> bool:
    if isinstance(error, OSError):
        return error.errno in {errno.ENOSPC, errno.EDQUOT}
    return os.strerror(errno.ENOSPC) in str(error)  # safetensors raises its own error with the system's words


if __name__ == "__main__":
    main()
