"""The plan as a command: what it prints, and what it does not import."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path


def test_a_plan_of_the_preset_counts_its_cost_and_imports_neither_torch_nor_datasets(tmp_path: Path) -> None:
    code = (
        "import sys\n"
        "from phasegate.core.cli.app import main\n"
        "try:\n    main(['plan', 'ncas-nano', '--json'])\n"
        "except SystemExit as stop:\n    assert not stop.code, stop.code\n"
        "heavy = {'torch', 'transformers', 'datasets', 'lm_eval'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    plan = json.loads(done.stdout)
    # 1536 x 64 embeddings; 3 layers of 4 x 64 x 64 attention and 9 x 3 x 64 x 64 experts, 9 x 64 router, norms.
    assert plan["parameters"]["total"] == 98_304 + 3 * (16_384 + 110_592 + 576 + 160) + 64
    assert [stage["phase"] for stage in plan["stages"]] == ["foundation", "specialization", "alignment"]
    assert not any(stage["cached"] for stage in plan["stages"])
    assert list(tmp_path.iterdir()) == []
