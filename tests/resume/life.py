"""One life of a training process: the command itself, telling what it does, and ended where its order says.

Run by ``harness`` in a process of its own, which a fork server starts with everything imported and nothing else.
"""

from __future__ import annotations

import errno
import functools
import importlib
import os
import signal
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NoReturn


def live(order: Mapping[str, Any]) -> NoReturn:
    """Carry an order out: ``arguments`` of the command, ``cwd``, ``log``, ``events`` (a connection), ``traps``."""
    log = os.open(order["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    for descriptor in (1, 2):
        os.dup2(log, descriptor)
    os.chdir(order["cwd"])
    from phasegate.core.cli.app import main

    tell(order["events"])
    for trap in order["traps"]:
        set_trap(**trap)
    try:
        main(order["arguments"])
    except SystemExit as end:
        code = end.code
    else:
        code = 0
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(int(code or 0))


def tell(events: Any) -> None:
    """Send a label and the time for all that the phase loop and its trainers tell."""
    from phasegate.core.cli.watching import Watch

    place = {"phase": "", "step": "", "attempt": ""}
    show, reached = Watch.show, Watch.reached

    def say(*words: Any) -> None:
        events.send(("/".join(map(str, (place["phase"], place["attempt"], place["step"], *words))), time.monotonic()))

    def showing(self: Watch, what: str, fact: Any) -> None:
        if what == "phase":
            place.update(phase=fact.name, attempt="", step="entry")
            say("phase")
        elif what == "step":
            place.update(attempt=fact.attempt.number, step=fact.step)
            say("step")
        elif what == "measuring":
            say("measuring", fact)
        elif what in {"committing", "outcome"}:
            say(what)
        show(self, what, fact)

    def reaching(self: Watch, step: int) -> None:
        say("reached", step)
        reached(self, step)

    Watch.show, Watch.reached = showing, reaching  # type: ignore[method-assign]


def set_trap(*, at: str, do: str, call: int = 1, after: bool = False, below: str = "") -> None:
    """Let the ``call``-th call of ``module:attribute``, and those that follow, do what ``do`` says, before or after its
    work; calls whose arguments do not name a path with ``below`` in it do not count."""
    module, _, name = at.partition(":")
    owner: Any = importlib.import_module(module)
    *owners, attribute = name.split(".")
    owner = functools.reduce(getattr, owners, owner)
    real, act, calls = getattr(owner, attribute), ACTS[do], 0

    @functools.wraps(real)
    def trapped(*arguments: Any, **options: Any) -> Any:
        nonlocal calls
        told = [str(value) for value in (*arguments, *options.values()) if isinstance(value, str | os.PathLike)]
        if below and not any(below in text for text in told):
            return real(*arguments, **options)
        calls += 1
        if calls < call:
            return real(*arguments, **options)
        if not after:
            act(arguments, options)
            return real(*arguments, **options)
        result = real(*arguments, **options)
        act(arguments, options)
        return result

    setattr(owner, attribute, trapped)


def kill(arguments: Any, options: Any) -> None:
    """End at once, as a kernel or a power cut would."""
    os.kill(os.getpid(), signal.SIGKILL)


def halve(arguments: Any, options: Any) -> None:
    """Leave the newest file of the written path half written, and end."""
    path = next(Path(value) for value in (*arguments, *options.values()) if isinstance(value, str | os.PathLike))
    files = [path] if path.is_file() else [one for one in path.rglob("*") if one.is_file()]
    newest = max(files, key=lambda one: one.stat().st_mtime_ns)
    os.truncate(newest, newest.stat().st_size // 2)
    kill(arguments, options)


def asked(number: int) -> Callable[[Any, Any], None]:
    """A signal to this process, once."""
    sent: list[int] = []

    def act(arguments: Any, options: Any) -> None:
        if not sent:
            sent.append(number)
            signal.raise_signal(number)

    return act


def asked_twice(arguments: Any, options: Any) -> None:
    """Two signals, the second an order."""
    signal.raise_signal(signal.SIGTERM)
    signal.raise_signal(signal.SIGTERM)


def failing(number: int) -> Callable[[Any, Any], None]:
    """A write that the system refuses."""

    def act(arguments: Any, options: Any) -> None:
        raise OSError(number, os.strerror(number), str(arguments[0]) if arguments else None)

    return act


ACTS: Mapping[str, Callable[[Any, Any], None]] = {
    "full": failing(errno.ENOSPC),
    "halve": halve,
    "kill": kill,
    "read-only": failing(errno.EROFS),
    "sigint": asked(signal.SIGINT),
    "sigterm": asked(signal.SIGTERM),
    "sigterm twice": asked_twice,
}

if __name__ == "life":
    live(globals()["ORDER"])
