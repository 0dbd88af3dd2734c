"""The page on training says what is so: its snippets run."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

PAGE = (Path(__file__).parents[3] / "docs" / "training.md").read_text(encoding="utf-8")


def test_the_snippets_of_the_training_page_run_in_order() -> None:
    snippets = re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL)
    space: dict[str, Any] = {}
    for snippet in snippets:
        exec(compile(snippet, "docs/training.md", "exec"), space)
    assert len(snippets) == 5 and space["found"].recovery == 0.3
    space["folder"].cleanup()
