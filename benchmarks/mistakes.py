"""How long a broken experiment takes to be told, as who types the command sees it.

    python benchmarks/mistakes.py                  every case of the corpus in a process of its own, and the slowest
    python benchmarks/mistakes.py --every 10       one case in ten
    python benchmarks/mistakes.py --only family    those of this name

Seconds of the wall clock from the start of the process to its end, so the interpreter and all imports are in them; the
seconds of the processor are beside them, since other work on the machine is not in those. Exits with 1 if a case took
more than two seconds of the processor.
"""

from __future__ import annotations

import argparse
import os
import resource
import runpy
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from rich.console import Console
from rich.table import Table

TESTS = Path(__file__).parents[1] / "tests" / "integration" / "test_broken_experiments.py"
LIMIT = 2.0
SHOWN = 10


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--every", type=int, default=1, help="one case in so many")
    parser.add_argument("--only", default="", metavar="WORDS", help="cases whose names hold these words")
    asked = parser.parse_args()
    corpus = runpy.run_path(str(TESTS))
    found = []
    for name in [name for name in corpus["CASES"] if asked.only in name][:: asked.every]:
        case = corpus["make_case"](corpus["CASES"][name])
        found.append((name, *seconds(case)))
    for name in [name for name in corpus["FILES"] if asked.only in name][:: asked.every]:
        with tempfile.TemporaryDirectory() as folder:
            corpus["FILES"][name][0](Path(folder) / "broken.yaml")
            found.append((name, *run(Path(folder), ("plan", "broken.yaml"))))
    found.sort(key=lambda row: -row[1])
    table = Table("case", "wall, s", "processor, s", title=f"the slowest of {len(found)} broken experiments")
    for name, wall, processor in found[:SHOWN]:
        table.add_row(name, f"{wall:.2f}", f"{processor:.2f}")
    middle = found[len(found) // 2]
    table.add_row("median", f"{middle[1]:.2f}", f"{middle[2]:.2f}")
    Console(width=120).print(table)
    raise SystemExit(any(processor > LIMIT for _, _, processor in found))


def seconds(case: object) -> tuple[float, float]:
    """Write a case into a folder of its own and time the command on it."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "broken.yaml").write_bytes(case.text.encode("utf-8", "surrogatepass"))
        for file, content in case.beside.items():
            (Path(folder) / file).parent.mkdir(exist_ok=True)
            (Path(folder) / file).write_bytes(content if isinstance(content, bytes) else content.encode())
        return run(Path(folder), case.command)


def run(folder: Path, command: tuple[str, ...]) -> tuple[float, float]:
    """Time one process in seconds of the wall clock and of the processor; a case that is no mistake is an error."""
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    program = [sys.executable, "-P", "-m", "phasegate.core.cli.app", *command]
    ended = subprocess.run(program, cwd=folder, env={**os.environ, "HF_HUB_OFFLINE": "1"}, capture_output=True)
    wall, after = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
    assert ended.returncode == 2, ended.stderr.decode()
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


if __name__ == "__main__":
    main()
