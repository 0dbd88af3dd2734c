"""Experiments that train in seconds and together use everything that a resume could get wrong."""

from __future__ import annotations

_HEAD = """
name: {name}
size: nano
tokenizer: {{vocab_size: 500, documents: 200}}
data:
  sequence_length: 48
  sources:
    world: {{use: microworld, head: 4, rare: 1, contested: 1, unknown: 2, hard: 1, training_documents: 300, chats: 160,
            pairs: 60, heldout_chats: 24, heldout_pairs: 16, needles: 20}}
run: {{logging_steps: 2, save_every: 0.34, threads: 1}}
"""

_MODEL = """
model: {hidden_size: 32, num_hidden_layers: 2, num_attention_heads: 2, head_dim: 16, moe_intermediate_size: 16,
        num_experts: 6}
"""

#: Packed text under activation checkpointing, chats and pairs beside replayed rows: the least that shows a resume.
SHORT = (
    _HEAD.format(name="short")
    + _MODEL
    + """
phases:
  foundation:
    steps: {pretrain: {steps: 7, rows: 4, activation_checkpointing: true}}
    gates: {knowledge: {at_least: 0.0, documents: 20}, load-low: null, load-high: null, plateau: null}
    policy: {extensions: 0}
  alignment:
    entry: {knowledge: {at_least: 0.0, documents: 20}}
    steps:
      sft: {steps: 4, rows: 4, replay: {rows: 2}}
      dpo: {steps: 3, rows: 4, replay: {rows: 4, routing: replayed}}
    gates: {knowledge-kept: {at_least: -1.0, documents: 20}, format: null, preference: {at_least: 0.0, documents: 8},
            judge: null, domain-entropy-low: null, domain-entropy-high: null, general-entropy: null, load-low: null,
            load-high: null}
    policy: {extensions: 0}
"""
)

#: All six phases, with an extension, a roll-back, a loss-free bias, accumulation and both kinds of replay.
SIX = (
    _HEAD.format(name="six")
    + _MODEL
    + """
phases:
  foundation:
    steps:
      pretrain:
        steps: 6
        rows: 4
        accumulate: 2
        losses: {bias: {use: loss-free-bias}}
    gates: {knowledge: {at_least: 0.99, documents: 20}, load-low: null, load-high: null, plateau: null}
    policy: {on_fail: extend, extensions: 1, extend_by: 0.5, then: advance}
  specialization:
    steps: {specialize: {steps: 4, rows: 4, activation_checkpointing: true}}
    gates: {knowledge-kept: {at_least: 0.99, documents: 20}, domain-entropy-low: null, domain-entropy-high: null,
            general-entropy: null, load-low: null, load-high: null, cross-domain: null}
    policy: {on_fail: rollback, extensions: 1, then: advance}
  alignment:
    entry: {knowledge: {at_least: 0.0, documents: 20}}
    steps:
      sft: {steps: 3, rows: 4, replay: {rows: 2}, activation_checkpointing: true}
      dpo: {steps: 3, rows: 4, replay: {rows: 4}}
    gates: {knowledge-kept: {at_least: -1.0, documents: 20}, format: {at_least: 0.0, documents: 4},
            preference: {at_least: 0.0, documents: 8}, judge: {at_least: 0.0, documents: 4}, domain-entropy-low: null,
            domain-entropy-high: null, general-entropy: null, load-low: null, load-high: null}
    policy: {extensions: 0}
  safety:
    entry: {knowledge: {at_least: 0.0, documents: 20}, format: null}
    steps: {refuse: {steps: 3, rows: 12, replay: {rows: 4, routing: replayed}}}
    gates: {harmful-refused: {at_least: 0.0, documents: 8}, benign-answered: {at_least: 0.0, documents: 8},
            professional-kept: null, over-refusal: null, knowledge-kept: null, format-kept: null,
            domain-entropy-low: null, domain-entropy-high: null, general-entropy: null, load-low: null,
            load-high: null}
    policy: {extensions: 0}
  metacognition:
    options: {questions: 30}
    gates: {calibrated: {at_most: 1.0, documents: 20}, discriminates: null, confident-wrong: null, coverage: null,
            justified: null, beats-softmax: null, beats-softmax-selecting: null}
  optimization:
    options: {metacognition: {questions: 30}, short: ["16"], double: ["32"], quadruple: ["76"]}
    entry: {knowledge: {at_least: 0.0, documents: 20}}
    steps:
      short: {steps: 2, rows: 4, replay: {rows: 4}}
      double: {steps: 2, rows: 4, replay: {rows: 4}}
      quadruple: {steps: 2, rows: 4, replay: {rows: 4}, activation_checkpointing: true}
      draft: {steps: 3, rows: 4, options: {samples: 12, sample_tokens: 6}}
    gates: {retrieval-2x: null, retrieval-4x: null, short-context: {at_most: 9.0, documents: 12},
            knowledge-kept: null, format-kept: null, judge-kept: null, harmful-refused: null, benign-answered: null,
            calibrated: null, discriminates: null, anchor-detects: null, anchor-lets-through: null,
            draft-identical: {at_least: 0.0, documents: 2}, draft-speedup: {at_least: 0.0, documents: 2},
            every-expert-needed: null, experts-match: null, domain-entropy-low: null, domain-entropy-high: null,
            general-entropy: null, load-low: null, load-high: null}
    policy: {extensions: 0}
"""
)

#: The five stages of the Perspective curriculum: conversions, a quantizer that comes in events, and both routers.
PERSPECTIVE = (
    _HEAD.format(name="perspective")
    + """
model:
  {start: dense, mixer: {use: pdr, rank: 8}, router: {use: linear, gate: straight-through}, hidden_size: 32,
   num_hidden_layers: 3, num_attention_heads: 2, head_dim: 16, moe_intermediate_size: 16, window: 16, dense_layers: [2],
   num_experts: 8}
phases:
  seed:
    use: dense-seed
    options: {steps: 4}
    steps: {twin: {rows: 4}, pretrain: {rows: 4}}
    gates: {knowledge: {at_least: 0.0, documents: 20}, against-attention: {at_most: 9.0, documents: 12}}
    policy: {extensions: 0}
  experts:
    use: expert-initialization
    options: {growth: 0}
    gates: {drift: {documents: 12}, knowledge-kept: null}
    policy: {extensions: 0}
  differentiation:
    use: expert-differentiation
    options: {steps: 5}
    steps: {differentiate: {rows: 4, activation_checkpointing: true}}
    gates: {gini-in-training: {at_most: 1.0}, gini: null, no-dead-experts: null, similarity: {at_most: 1.0},
            better-than-clones: {at_most: 9.0, documents: 12}, knowledge: null}
    policy: {extensions: 0}
  ternary:
    use: ternary-distillation
    options: {steps: 8}
    steps: {distill: {rows: 4}}
    gates: {ternary-cost: {at_most: 9.0, documents: 12}, gini-in-training: {at_most: 1.0}, no-dead-experts: null,
            knowledge-kept: null}
    policy: {extensions: 0}
  manifold:
    use: manifold-alignment
    options: {steps: 6}
    steps: {align: {rows: 4}}
    gates: {gini-in-training: {at_most: 1.0}, gini: null, unreached: null, against-old-router: null,
            same-expert: {at_least: 0.0, documents: 12}, delta-density: {at_most: 1.0}, knowledge-kept: null}
    policy: {extensions: 0}
"""
)
