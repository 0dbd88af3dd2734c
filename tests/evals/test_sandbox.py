"""Programs of a model: what they may do, and what counts as passing. Off unless allowed."""

from __future__ import annotations

import importlib.util
import os
import time
from pathlib import Path
from typing import Any

import pytest
from phasegate.evals.benchmarks import BenchmarkRequest, run_benchmark
from phasegate.evals.bridge import Evaluation, Sample
from phasegate.evals.code import build_predictions, estimate, pass_at_k
from phasegate.evals.processing import read_jsonl
from phasegate.evals.sandbox import run_program
from phasegate.evals.stock_scores import measure_stock
from phasegate.evals.stock_tasks import STOCK

_SPEC = importlib.util.spec_from_file_location("phasegate_stock_copies", Path(__file__).parent / "stock_copies.py")
assert _SPEC is not None and _SPEC.loader is not None
copies = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(copies)

SHARED = Path(__file__).parents[3] / "shared" / "data"


@pytest.mark.parametrize(
    "program",
    [
        "from typing import List\nimport math, re, hashlib\nprint(1)\nassert math.pi > 3",
        "assert len('é€') == 2",
        "open('own', 'w').write('a')\nassert open('own').read() == 'a'",
        "def f():\n    return 1\nif __name__ == '__main__':\n    assert f() == 1",
    ],
)
def test_a_right_program_passes(program: str) -> None:
    assert run_program(program).passed


@pytest.mark.parametrize(
    "program",
    [
        "assert False",
        "def f(:",
        "import sys\nsys.exit(0)",
        "import os\nos._exit(0)",
        "raise KeyboardInterrupt",
        "held = bytearray(2 << 30)",
        "open('large', 'wb').write(bytes(2 << 20))",
        "def f():\n    f()\nf()",
        "\x00",
    ],
)
def test_a_wrong_or_greedy_program_fails(program: str) -> None:
    found = run_program(program)
    assert not found.passed and not found.timed_out


def test_a_program_without_end_is_stopped_in_time() -> None:
    before = time.monotonic()
    found = run_program("while True:\n    pass", seconds=0.3)
    assert found.timed_out and not found.passed
    assert time.monotonic() - before < 3


def test_what_a_program_starts_ends_with_it(tmp_path: Path) -> None:
    """A child that leaves the group would live on, but not where processes are kept apart; nor can it be started."""
    mark = tmp_path / "mark"
    program = (
        "import os, time\n"
        "if os.fork() == 0:\n"
        "    os.setsid()\n"
        "    time.sleep(0.3)\n"
        f"    open({str(mark)!r}, 'w').write('here')\n"
    )
    found = run_program(program)
    if not found.offline and os.getuid() == 0:
        pytest.skip("this system keeps processes neither apart nor from being started")
    deadline = time.monotonic() + 0.6
    while time.monotonic() < deadline:
        assert not mark.exists()


def test_a_program_does_not_see_this_environment_or_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET", "word")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "math.py").write_text("broken = True")
    program = "import os, math\nassert 'SECRET' not in os.environ\nassert os.listdir() == []\nassert math.pi > 3"
    assert run_program(program).passed


def test_no_network_where_the_system_allows_it() -> None:
    program = (
        "import socket\n"
        "heard = socket.create_server(('127.0.0.1', 0))\n"
        "socket.create_connection(heard.getsockname(), 1)"
    )
    found = run_program(program)
    if not found.offline:
        pytest.skip("this system does not let a user leave its network")
    assert not found.passed


@pytest.mark.parametrize(
    ("n", "right", "k", "expected"), [(1, 1, 1, 1.0), (4, 1, 1, 0.25), (4, 2, 2, 5 / 6), (3, 0, 2, 0)]
)
def test_pass_at_k_is_the_chance_that_one_of_k_draws_is_right(n: int, right: int, k: int, expected: float) -> None:
    assert estimate(n, right, k) == pytest.approx(expected)


def test_programs_are_prompt_and_continuation_and_judged_by_the_test() -> None:
    row = copies.COPIES["humaneval"][3]
    (programs,) = build_predictions([["    return a + 3\n", "    return a\n"]], [row])
    reference = f"{row['test']}\ncheck({row['entry_point']})"
    assert pass_at_k(references=[reference], predictions=[programs], k=[1, 2]) == {"pass@1": 0.5, "pass@2": 1.0}


@pytest.mark.skipif(
    not (SHARED / STOCK["humaneval"].file).is_file(), reason="the shared data is not beside this checkout"
)
def test_solutions_of_the_benchmark_itself_pass() -> None:
    for row in read_jsonl(SHARED / STOCK["humaneval"].file)[:10]:
        reference = f"{row['test']}\ncheck({row['entry_point']})"
        assert pass_at_k([reference], [[row["prompt"] + row["canonical_solution"]]], k=[1]) == {"pass@1": 1.0}


def test_code_is_not_run_unless_allowed(model: Any, tokenizer: Any, tmp_path: Path) -> None:
    copies.write_copies(tmp_path, ["humaneval"])
    request = BenchmarkRequest(task="humaneval", root=tmp_path, folder=tmp_path / "packs")
    found = run_benchmark(model, tokenizer, request)
    assert found.measurements == {}
    assert found.missing is not None and "--allow-code-execution" in found.missing


def test_humaneval_runs_where_it_is_allowed(model: Any, tokenizer: Any, tmp_path: Path) -> None:
    copies.write_copies(tmp_path, ["humaneval"])
    model.generation_config.eos_token_id = list(range(320))
    found = run_benchmark(
        model,
        tokenizer,
        BenchmarkRequest(task="humaneval", root=tmp_path, folder=tmp_path / "packs", documents=2, allow_code=True),
    )
    assert found.missing is None
    assert set(found.measurements) == {"pass@1,create_test"}
    assert found.measurements["pass@1,create_test"].n == 2
    assert "network" in found.data


def test_humaneval_of_the_hub_uses_this_runner(
    model: Any, tokenizer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import datasets

    given = datasets.Dataset.from_list(copies.COPIES["humaneval"])
    monkeypatch.setattr(datasets, "load_dataset", lambda path, **_kwargs: {"test": given})
    model.generation_config.eos_token_id = list(range(320))
    found = run_benchmark(
        model,
        tokenizer,
        BenchmarkRequest(task="humaneval", root=None, folder=tmp_path, documents=1, allow_code=True),
    )
    assert found.missing is None
    assert found.measurements["pass@1,create_test"].n == 1


def _sample(hash_: str, verdicts: list[bool]) -> Sample:
    share = sum(verdicts) / len(verdicts)
    names = ("prompt_level_strict_acc", "prompt_level_loose_acc")
    metrics = dict.fromkeys(names, float(all(verdicts))) | dict.fromkeys(
        ("inst_level_strict_acc", "inst_level_loose_acc"), share
    )
    doc = {"instruction_id_list": ["a"] * len(verdicts)}
    return Sample(task="ifeval", hash=hash_, doc=doc, answers=("",), metrics=metrics)


def test_instructions_count_alike_whatever_prompt_they_stand_in() -> None:
    """Three followed of four; the mean over prompts would be 5/6."""
    found = Evaluation(
        samples={"ifeval": (_sample("x", [True]), _sample("y", [True, True, False]))}, results={}, versions={}
    )
    measured = measure_stock(STOCK["ifeval"], found.samples, {}, {})
    assert measured["inst_level_strict_acc"].value == pytest.approx(3 / 4)
    assert measured["prompt_level_strict_acc"].value == pytest.approx(1 / 2)
    values = measured["inst_level_strict_acc"].per_document.values()
    assert sum(values) / len(values) == pytest.approx(3 / 4)
