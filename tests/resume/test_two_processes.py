"""Two processes that train together, killed as one, end in the bits of two that never were."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from .experiments import SHORT
from .harness import differences

PATIENCE = 400.0


def start(folder: Path) -> subprocess.Popen[bytes]:
    folder.mkdir(exist_ok=True)
    (folder / "short.yaml").write_text(SHORT, encoding="utf-8")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", "--no-python"]
    command += [str(Path(sys.executable).with_name("platform")), "train", "short.yaml"]
    with (folder / "log.txt").open("ab") as log:
        return subprocess.Popen(
            command,
            cwd=folder,
            env=os.environ | {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"},
            stdout=log,
            stderr=log,
            start_new_session=True,
        )


def finish(folder: Path) -> None:
    process = start(folder)
    assert process.wait(PATIENCE) == 0, (folder / "log.txt").read_text()[-4000:]


def kill_once(folder: Path, pattern: str) -> None:
    """Start, and kill launcher and workers as soon as the store holds a file of this pattern."""
    process = start(folder)
    while not list((folder / "store").glob(pattern)):
        try:
            code = process.wait(0.02)
        except subprocess.TimeoutExpired:
            continue
        raise AssertionError(f"ended with {code}: {(folder / 'log.txt').read_text()[-4000:]}")
    # The launcher gives every worker a session of its own, so that killing its group would leave them waiting for ever.
    family = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
    for one in family:
        with suppress(psutil.NoSuchProcess):
            one.kill()
    psutil.wait_procs(family[1:], PATIENCE)
    process.wait(PATIENCE)


@pytest.mark.slow
def test_two_processes_that_are_killed_end_in_the_same_bits(tmp_path: Path) -> None:
    finish(tmp_path / "whole")
    broken = tmp_path / "broken"
    kill_once(broken, ".work/foundation-*/attempt-0/pretrain/trainer/checkpoint-4/COMPLETE")
    kill_once(broken, ".work/alignment-*/attempt-0/dpo/trainer/checkpoint-1/COMPLETE")
    finish(broken)
    assert differences(tmp_path / "whole", broken) == []
