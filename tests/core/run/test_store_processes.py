"""The store among processes: killed in the middle of a commit, and two that want one stage."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest
from phasegate.core.run.fingerprint import recipe_of
from phasegate.core.run.store import Store

RECIPE = recipe_of({"phase": "foundation", "seed": 0})

# Kills itself with SIGKILL at the N-th call that changes the disk after the draft was filled.
COMMIT = """
import os, pathlib, shutil, signal, sys
from phasegate.core.run.fingerprint import recipe_of
from phasegate.core.run.store import Store

store, at = Store(pathlib.Path(sys.argv[1])), int(sys.argv[2])
recipe = recipe_of({"phase": "foundation", "seed": 0})
work = store.begin(recipe)
(work.folder / "state").write_text("kept")
with store.draft(work) as draft:
    (draft.checkpoint / "model.safetensors").write_bytes(b"weights")
    calls = 0
    def deadly(real):
        def call(*arguments, **options):
            global calls
            calls += 1
            if calls == at:
                os.kill(os.getpid(), signal.SIGKILL)
            return real(*arguments, **options)
        return call
    os.fsync = deadly(os.fsync)
    os.rmdir = deadly(os.rmdir)
    pathlib.Path.rename = deadly(pathlib.Path.rename)
    pathlib.Path.replace = deadly(pathlib.Path.replace)
    shutil.rmtree = deadly(shutil.rmtree)
    store.commit(draft, {})
    print(calls)
"""

# Makes the stage once it is told to, or reuses it; says what it does.
SHARE = """
import pathlib, sys
from phasegate.core.run.fingerprint import recipe_of
from phasegate.core.run.store import Store

def say(text):
    print(text, flush=True)

store = Store(pathlib.Path(sys.argv[1]))
recipe = recipe_of({"phase": "foundation", "seed": 0})
with store.single_flight(recipe, waiting=lambda text: say("waiting: " + text)):
    if store.find(recipe) is not None:
        say("reused")
    else:
        say("training")
        sys.stdin.readline()
        with store.draft(store.begin(recipe)) as draft:
            (draft.checkpoint / "model.safetensors").write_bytes(sys.argv[2].encode())
            store.commit(draft, {})
        say("committed")
"""


def commit(root: Path, at: int) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", COMMIT, str(root), str(at)], capture_output=True, text=True)


def share(root: Path, word: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", SHARE, str(root), word], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )


def line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def go(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    process.stdin.write("\n")
    process.stdin.flush()


def test_a_kill_anywhere_in_a_commit_leaves_a_whole_stage_or_none(tmp_path: Path) -> None:
    undisturbed = commit(tmp_path / "undisturbed", 0)
    points = int(undisturbed.stdout)
    assert points >= 8
    whole = []
    for at in range(1, points + 1):
        store = Store(tmp_path / str(at))
        assert commit(store.root, at).returncode == -signal.SIGKILL
        stage = store.find(RECIPE)
        whole.append(stage is not None)
        if stage is None:
            assert store.list() == ()
            assert (store.begin(RECIPE).folder / "state").read_text() == "kept"
        else:
            store.verify(stage)
        # The next attempt is never hindered by what the killed one left.
        assert commit(store.root, 0).returncode == 0
        made = store.find(RECIPE)
        assert made is not None
        store.verify(made)
    # Before the mark there is nothing, after it everything.
    assert whole == sorted(whole) and whole[0] is False and whole[-1] is True


def test_of_two_processes_that_want_one_stage_one_makes_it_and_one_waits(tmp_path: Path) -> None:
    first = share(tmp_path, "first")
    assert line(first) == "training"
    second = share(tmp_path, "second")
    told = line(second)
    assert told.startswith(f"waiting: process {first.pid} on ") and RECIPE.name in told
    go(first)
    assert line(first) == "committed"
    assert line(second) == "reused"
    assert (first.wait(), second.wait()) == (0, 0)
    stage = Store(tmp_path).find(RECIPE)
    assert stage is not None and (stage.checkpoint / "model.safetensors").read_bytes() == b"first"


def test_the_lock_of_a_killed_process_is_free(tmp_path: Path) -> None:
    first = share(tmp_path, "first")
    assert line(first) == "training"
    second = share(tmp_path, "second")
    assert line(second).startswith("waiting: ")
    first.send_signal(signal.SIGKILL)
    assert line(second) == "training"
    go(second)
    assert line(second) == "committed"
    assert (first.wait(), second.wait()) == (-signal.SIGKILL, 0)


@pytest.mark.parametrize("kind", [KeyboardInterrupt, RuntimeError])
def test_waiting_can_be_stopped(tmp_path: Path, kind: type[BaseException]) -> None:
    first = share(tmp_path, "first")
    assert line(first) == "training"

    def stop() -> None:
        raise kind("enough")

    with pytest.raises(kind, match="enough"), Store(tmp_path).single_flight(RECIPE, stop=stop):
        pass
    go(first)
    assert line(first) == "committed"
    assert first.wait() == 0
