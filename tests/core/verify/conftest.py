"""An experiment of two phases that is verified in seconds, and the proofs of it that fail."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

SMALL = """
name: small
model: {hidden_size: 32, num_hidden_layers: 2, num_attention_heads: 2, head_dim: 16, moe_intermediate_size: 16,
        num_experts: 6}
tokenizer: {vocab_size: 400, documents: 200}
data:
  sequence_length: 48
  sources:
    world: {use: microworld, head: 4, rare: 1, contested: 1, unknown: 2, hard: 1, training_documents: 300, chats: 160,
            pairs: 80, heldout_chats: 24, heldout_pairs: 16, needles: 4}
phases:
  foundation:
    options:
      mixture: {general: 0.4, code: 0.1, science: 0.1, books: 0.1, portuguese: 0.1, mathematics: 0.1, structured: 0.1}
    steps: {pretrain: {steps: 9, rows: 4}}
    gates: {knowledge: {at_least: 0.0, documents: 8}, load-low: null, load-high: null, plateau: null}
  specialization:
    steps: {specialize: {steps: 6, rows: 20}}
    entry: null
    gates: {domain-entropy-low: null, domain-entropy-high: null, general-entropy: null, load-low: null,
            load-high: null, cross-domain: null, knowledge-kept: null}
  alignment:
    entry: null
    steps:
      sft: {steps: 6, rows: 8, replay: {rows: 2}}
      dpo: {steps: 3, rows: 4, replay: {rows: 4}}
    gates: {format: null, knowledge-kept: null, preference: null, judge: null, domain-entropy-low: null,
            domain-entropy-high: null, general-entropy: null, load-low: null, load-high: null}
"""


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """The experiment as a file."""
    path = tmp_path / "small.yaml"
    path.write_text(SMALL, encoding="utf-8")
    return path


@pytest.fixture
def failing(small: Path) -> Callable[..., set[str]]:
    """Verify the experiment with some overrides; the names of the proofs that fail, of all that are made."""
    from phasegate.core.verify.verify import verify

    def run(*overrides: str) -> set[str]:
        proofs = list(verify(str(small), overrides))
        assert any(proof.outcome == "holds" for proof in proofs)
        return {proof.name for proof in proofs if proof.outcome == "fails"}

    return run
