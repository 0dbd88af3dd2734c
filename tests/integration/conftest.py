"""A whole experiment small enough to run in seconds, and ways to run it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"

TINY = """
name: tiny
size: nano
model: {hidden_size: 32, num_hidden_layers: 2, num_attention_heads: 2, head_dim: 16, moe_intermediate_size: 16,
        num_experts: 6}
tokenizer: {vocab_size: 600, documents: 400}
data:
  sequence_length: 48
  sources:
    world: {use: microworld, head: 4, rare: 1, contested: 1, unknown: 2, hard: 1, training_documents: 900, chats: 240,
            pairs: 120, heldout_chats: 24, heldout_pairs: 16, needles: 20}
run: {logging_steps: 2, save_every: 0.34, threads: 1}
phases:
  foundation:
    steps: {pretrain: {steps: 9, rows: 4}}
    gates:
      knowledge: {at_least: 0.0, documents: 40}
      load-low: {at_least: 0.0, documents: 28}
      load-high: {at_most: 1.0, documents: 28}
      plateau: null
    policy: {extensions: 0}
  specialization:
    steps: {specialize: {steps: 6, rows: 4}}
    entry: {no-dead-experts: {at_most: 9, documents: 28}}
    gates:
      domain-entropy-low: {at_least: 0.0, documents: 28}
      domain-entropy-high: {at_most: 3.0, documents: 28}
      general-entropy: {at_least: 0.0, documents: 28}
      load-low: {at_least: 0.0, documents: 28}
      load-high: {at_most: 1.0, documents: 28}
      cross-domain: {at_most: 9.0, documents: 28}
      knowledge-kept: {at_least: -1.0, documents: 40}
    policy: {extensions: 0}
  alignment:
    entry: {knowledge: {at_least: 0.0, documents: 40}}
    steps:
      sft: {steps: 6, rows: 8, replay: {rows: 2}}
      dpo: {steps: 3, rows: 4, replay: {rows: 4}}
    gates:
      format: {at_least: 0.0, documents: 8}
      knowledge-kept: {at_least: -1.0, documents: 40}
      preference: {at_least: 0.0, documents: 12}
      judge: {at_least: 0.0, documents: 8}
      domain-entropy-low: null
      domain-entropy-high: null
      general-entropy: null
      load-low: {at_least: 0.0, documents: 28}
      load-high: null
    policy: {extensions: 0}
"""

LATE = """  safety:
    entry: {knowledge: {at_least: 0.0, documents: 40}, format: {at_least: 0.0, documents: 8}}
    steps:
      refuse: {steps: 4, rows: 12, replay: {rows: 4}}
    gates:
      harmful-refused: {at_least: 0.0, documents: 40}
      benign-answered: {at_least: 0.0, documents: 40}
      professional-kept: {at_least: -1.0, documents: 40}
      over-refusal: {at_most: 1.0, documents: 40}
      knowledge-kept: {at_least: -1.0, documents: 40}
      format-kept: {at_least: 0.0, documents: 8}
      domain-entropy-low: null
      domain-entropy-high: null
      general-entropy: null
      load-low: {at_least: 0.0, documents: 28}
      load-high: null
    policy: {extensions: 0}
  metacognition:
    options: {questions: 60}
    gates:
      calibrated: {at_most: 1.0, documents: 60}
      discriminates: {at_least: 0.0, documents: 60}
      confident-wrong: {at_most: 1.0, documents: 60}
      coverage: {at_least: 0.0, documents: 60}
      justified: {at_least: 0.0, documents: 60}
      beats-softmax: {at_least: -1.0, documents: 60}
      beats-softmax-selecting: {at_least: -1.0, documents: 60}
  optimization:
    options: {metacognition: {questions: 60}, short: ["16"], double: ["32"], quadruple: ["76"]}
    entry: {knowledge: {at_least: 0.0, documents: 40}}
    steps:
      short: {steps: 2, rows: 4, replay: {rows: 4}}
      double: {steps: 2, rows: 4, replay: {rows: 4}}
      quadruple: {steps: 2, rows: 4, replay: {rows: 4}}
      draft: {steps: 3, rows: 8, options: {samples: 24, sample_tokens: 6}}
    gates:
      retrieval-2x: {at_least: 0.0, documents: 8}
      retrieval-4x: {at_least: 0.0, documents: 8}
      short-context: {at_most: 9.0, documents: 28}
      knowledge-kept: {at_least: -1.0, documents: 40}
      format-kept: {at_least: 0.0, documents: 8}
      judge-kept: {at_least: -1.0, documents: 8}
      harmful-refused: {at_least: 0.0, documents: 40}
      benign-answered: {at_least: 0.0, documents: 40}
      calibrated: {at_most: 1.0, documents: 60}
      discriminates: {at_least: 0.0, documents: 60}
      anchor-detects: {at_least: 0.0, documents: 40}
      anchor-lets-through: {at_most: 1.0, documents: 40}
      draft-identical: {at_least: 0.0, documents: 4}
      draft-speedup: {at_least: 0.0, documents: 4}
      every-expert-needed: {at_least: -9.0, documents: 28}
      experts-match: {at_least: 0.0, documents: 28}
      domain-entropy-low: null
      domain-entropy-high: null
      general-entropy: null
      load-low: {at_least: 0.0, documents: 28}
      load-high: null
    policy: {extensions: 0}
"""


@pytest.fixture
def six(tmp_path: Path) -> Path:
    """The tiny experiment with all six phases."""
    path = tmp_path / "six.yaml"
    path.write_text(TINY + LATE, encoding="utf-8")
    return path


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    """An experiment file of three phases that trains in seconds and whose gates pass whatever the model does."""
    path = tmp_path / "tiny.yaml"
    path.write_text(TINY, encoding="utf-8")
    return path
