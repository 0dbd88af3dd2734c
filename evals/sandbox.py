"""Programs that a model wrote, run where they can do little: a child process with limits, time, and no network.

This keeps accidents in, not attackers: the child runs as the same user and may read what that user may read. Run a
model that is not trusted in a container.
"""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
import sys
import tempfile
from contextlib import suppress
from dataclasses import dataclass

#: Limits of a program: wall-clock seconds (those of OpenAI's own HumanEval runner), memory and written files in bytes.
SECONDS = 3.0
MEMORY = 1 << 30
FILES = 1 << 20

# What the child runs: it leaves the network and other processes behind where the system lets it, starts the clock,
# takes its limits, and says the word behind the program's last line. Whoever keeps the clock dies with it, and what
# runs in its own process space dies with that.
_CHILD = r"""
import ctypes, os, resource, signal, sys
word, size = sys.stdin.readline().strip(), int(sys.stdin.readline())
program = sys.stdin.read(size)
out, null = os.dup(1), os.open(os.devnull, os.O_RDWR)
for descriptor in (0, 1, 2):
    os.dup2(null, descriptor)
system = ctypes.CDLL(None)
apart = hasattr(system, "unshare") and system.unshare(0x70000000) == 0  # CLONE_NEWUSER, _NEWPID, _NEWNET
os.write(out, b"apart\n" if apart else b"open\n")
signal.setitimer(signal.ITIMER_REAL, SECONDS)
inner = os.fork() if apart else 0
if inner:
    os._exit(os.waitstatus_to_exitcode(os.waitpid(inner, 0)[1]) & 255)
if apart:
    system.prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
for what, limit in LIMITS:
    most = resource.getrlimit(what)[1]
    value = limit if most == resource.RLIM_INFINITY else min(limit, most)
    resource.setrlimit(what, (value, value))
try:
    exec(compile(program, "<program>", "exec"), {"__name__": "__main__"})
except BaseException:
    os._exit(1)
os.write(out, word.encode())
os._exit(0)
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """Whether a program ran to its end without an exception, whether time ran out, and whether it had no network."""

    passed: bool
    timed_out: bool
    offline: bool


def run_program(program: str, seconds: float = SECONDS) -> Outcome:
    """Run Python source in a child process and say how it ended; what it prints is thrown away.

    The child has Python's isolated mode, an empty environment, an empty folder of its own that is removed afterwards,
    and limits on time, memory, file size and new processes; where the system allows it (Linux with user namespaces)
    no network, and no other process in sight. It
    counts as passed only if it reaches its last line: an exit in the middle is a failure, whatever its code.
    """
    word = secrets.token_hex(16)
    with tempfile.TemporaryDirectory(prefix="program-", ignore_cleanup_errors=True) as folder:
        child = subprocess.Popen(
            [sys.executable, "-I", "-X", "utf8", "-c", f"LIMITS, SECONDS = {_limits(seconds)!r}, {seconds}{_CHILD}"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            cwd=folder,
            env={},
            text=True,
            encoding="utf-8",
            errors="surrogatepass",
            start_new_session=True,
        )
        timed_out = False
        try:
            said, _ = child.communicate(f"{word}\n{len(program)}\n{program}", timeout=seconds + _START)
        except subprocess.TimeoutExpired:
            timed_out = True
        finally:
            _end(child)
        if timed_out:
            said, _ = child.communicate()
        timed_out = timed_out or child.returncode == -signal.SIGALRM
    return Outcome(passed=not timed_out and said.endswith(word), timed_out=timed_out, offline=said.startswith("apart"))


_START = 5.0  # seconds for the interpreter itself on a busy machine; the child keeps the clock


def _limits(seconds: float) -> list[tuple[int, int]]:
    import resource

    return [
        (resource.RLIMIT_CPU, int(seconds) + 1),
        (resource.RLIMIT_AS, MEMORY),
        (resource.RLIMIT_FSIZE, FILES),
        (resource.RLIMIT_NPROC, 0),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_NOFILE, 64),
    ]


def _end(child: subprocess.Popen[str]) -> None:
    """Kill the child and all it started."""
    with suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)
    child.wait()
