"""Reading rows, and what a step asks of the allocator."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from datasets import Dataset
from phasegate.core.training.memory import keep_freed_memory
from phasegate.core.training.rows import RowBlocks


def test_rows_are_the_same_in_any_order_and_block_size() -> None:
    data = Dataset.from_dict({"input_ids": [[n, n + 1] for n in range(10)], "domain": list(range(10))})
    rows = RowBlocks(data, ("input_ids", "domain"), block=4)
    assert len(rows) == 10
    for index in (0, 9, 3, 4, 0):
        assert rows[index]["input_ids"].tolist() == [index, index + 1]
        assert int(rows[index]["domain"]) == index


def test_only_the_named_columns_are_read() -> None:
    data = Dataset.from_dict({"input_ids": [[1]], "text": ["x"]})
    assert set(RowBlocks(data, ("input_ids",))[0]) == {"input_ids"}
    assert isinstance(RowBlocks(data, ("input_ids",))[0]["input_ids"], np.ndarray)


def test_the_users_own_allocator_settings_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MALLOC_TRIM_THRESHOLD_", "131072")
    assert not keep_freed_memory()


@pytest.mark.skipif(sys.platform != "linux", reason="glibc only")
def test_freed_memory_stays_in_the_process() -> None:
    # 24 MiB lie between glibc's default threshold, above which memory is handed back at once, and its largest.
    script = (
        "import resource, sys\n"
        "from phasegate.core.training.memory import keep_freed_memory\n"
        "import numpy as np\n"
        "kept = keep_freed_memory() if sys.argv[1] == 'keep' else None\n"
        "for _ in range(4): [np.ones(3 << 20) for _ in range(2)]\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt\n"
        "for _ in range(20): [np.ones(3 << 20) for _ in range(2)]\n"
        "print(kept, resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)\n"
    )
    faults = {}
    for mode in ("keep", "plain"):
        done = subprocess.run([sys.executable, "-c", script, mode], capture_output=True, text=True, check=True)
        kept, count = done.stdout.split()
        faults[mode] = int(count)
        if mode == "keep" and kept == "False":
            pytest.skip("the C library is not glibc")
    assert faults["keep"] < faults["plain"] / 10
