"""The fixtures of the measuring floor: tiny models, a tiny tokenizer, contexts over rows."""

from __future__ import annotations

import importlib.util
from pathlib import Path

_PATH = Path(__file__).parents[2] / "evals" / "conftest.py"
_SPEC = importlib.util.spec_from_file_location("phasegate_evals_fixtures", _PATH)
assert _SPEC is not None and _SPEC.loader is not None
_FIXTURES = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(_FIXTURES)

context = _FIXTURES.context
model = _FIXTURES.model
other_model = _FIXTURES.other_model
questions = _FIXTURES.questions
tokenizer = _FIXTURES.tokenizer
