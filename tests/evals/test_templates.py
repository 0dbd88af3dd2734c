"""Templates of tasks: compiled once, rendered the same."""

from __future__ import annotations

import pytest
from jinja2 import UndefinedError
from lm_eval.utils import apply_template, env
from phasegate.evals.templates import compiled_once

TEMPLATE = "{{question.strip()}} {{ 'is ' if known else '' }}{{ question | regex_replace('a', 'b') }}\n"


def test_a_template_is_compiled_once_and_renders_each_document() -> None:
    documents = [{"question": " a cat", "known": True}, {"question": "mat", "known": False}]
    outside = [apply_template(TEMPLATE, document) for document in documents]
    with compiled_once():
        assert env.from_string(TEMPLATE) is env.from_string(TEMPLATE)
        assert [apply_template(TEMPLATE, document) for document in documents] == outside
    assert outside == ["a cat is  b cbt\n", "mat mbt\n"]


def test_afterwards_templates_are_compiled_as_before() -> None:
    with pytest.raises(UndefinedError), compiled_once():
        apply_template("{{missing}}", {})
    assert env.from_string(TEMPLATE) is not env.from_string(TEMPLATE)
