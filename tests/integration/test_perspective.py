"""The Perspective curriculum in a whole run: what each stage changes, packing, deltas, resume, and bad input."""

from __future__ import annotations

import hashlib
import json
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

Platform = Callable[..., int]
Tensors = dict[str, torch.Tensor]

TINY = """
name: tiny-perspective
size: nano
model:
  {start: dense, mixer: {use: pdr, rank: 8}, router: {use: linear, gate: straight-through}, hidden_size: 32,
   num_hidden_layers: 4, num_attention_heads: 2, head_dim: 16, moe_intermediate_size: 16, window: 16, dense_layers: [3],
   num_experts: 8}
tokenizer: {vocab_size: 600, documents: 400}
data:
  sequence_length: 48
  sources:
    world: {use: microworld, head: 4, rare: 1, contested: 1, unknown: 2, hard: 1, training_documents: 900, chats: 240,
            pairs: 120, heldout_chats: 24, heldout_pairs: 16, needles: 20}
run: {logging_steps: 2, save_every: 0.25, threads: 1}
phases:
  seed:
    use: dense-seed
    options: {steps: 6}
    steps: {twin: {rows: 4}, pretrain: {rows: 4}}
    gates: {knowledge: {at_least: 0.0, documents: 40}, against-attention: {at_most: 9.0, documents: 28}}
    policy: {extensions: 0}
  experts:
    use: expert-initialization
    options: {growth: 0}
    gates: {drift: {documents: 28}, knowledge-kept: {at_least: -1.0, documents: 40}}
    policy: {extensions: 0}
  differentiation:
    use: expert-differentiation
    options: {steps: 8}
    steps: {differentiate: {rows: 4}}
    gates:
      gini-in-training: {at_most: 1.0}
      gini: {at_most: 1.0, documents: 28}
      no-dead-experts: {at_most: 99, documents: 28}
      similarity: {at_most: 1.0}
      better-than-clones: {at_most: 9.0, documents: 28}
      knowledge: {at_least: 0.0, documents: 40}
    policy: {extensions: 0}
  ternary:
    use: ternary-distillation
    options: {steps: 8}
    steps: {distill: {rows: 4}}
    gates:
      ternary-cost: {at_most: 9.0, documents: 28}
      gini-in-training: {at_most: 1.0}
      no-dead-experts: {at_most: 99, documents: 28}
      knowledge-kept: {at_least: -1.0, documents: 40}
    policy: {extensions: 0}
  manifold:
    use: manifold-alignment
    options: {steps: 8}
    steps: {align: {rows: 4}}
    gates:
      gini-in-training: {at_most: 1.0}
      gini: {at_most: 1.0, documents: 28}
      unreached: {at_most: 99, documents: 28}
      against-old-router: {at_most: 9.0, documents: 28}
      same-expert: {at_least: 0.0, documents: 28}
      delta-density: {at_most: 1.0}
      knowledge-kept: {at_least: -1.0, documents: 40}
    policy: {extensions: 0}
"""
PHASES = ("seed", "experts", "differentiation", "ternary", "manifold")


@pytest.fixture
def perspective(tmp_path: Path) -> Path:
    """The five stages at a size that trains in seconds, with gates that pass whatever the model does."""
    path = tmp_path / "perspective.yaml"
    path.write_text(TINY, encoding="utf-8")
    return path


def stages(store: Path) -> dict[str, Path]:
    return {path.parent.name.rsplit("-", 1)[0]: path.parent for path in store.glob("*/COMPLETE")}


def weights(folder: Path) -> Tensors:
    return dict(load_file(folder / "model.safetensors"))


def configuration(stage: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((stage / "checkpoint" / "config.json").read_text())
    return found


def rows(stage: Path, key: str) -> list[dict[str, Any]]:
    lines = (stage / "metrics.jsonl").read_text().splitlines()
    return [row for row in map(json.loads, lines) if key in row]


def bits(folder: Path) -> dict[str, str]:
    kept = [path for path in sorted(folder.rglob("*")) if path.is_file() and path.suffix in {".safetensors", ".jsonl"}]
    kept += [folder / "evidence" / "verdicts.json", folder / "checkpoint" / "config.json"]
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in kept}


def test_five_stages_change_what_they_are_for_and_nothing_else(
    perspective: Path, platform: Platform, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert platform("train", str(perspective)) == 0
    made = stages(tmp_path / "store")
    assert set(made) == set(PHASES)

    seed = weights(made["seed"] / "checkpoint")
    assert not [name for name in seed if "experts" in name or "layers.0.mlp" in name]  # its FFN is that of layer 3
    assert configuration(made["seed"])["layer_types"] == ["linear_attention"] * 3 + ["sliding_attention"]
    twin = json.loads((made["seed"] / "steps" / "twin" / "config.json").read_text())
    assert twin["mixer"] == "phasegate:attention"
    assert twin["layer_types"] == ["full_attention"] * 3 + ["sliding_attention"]

    experts = weights(made["experts"] / "checkpoint")
    assert experts["model.layers.0.mlp.experts.down_proj"].shape[0] == 8
    (cloned,) = rows(made["experts"], "upcycle/difference")
    assert cloned["upcycle/difference"] < 5e-5 and cloned["upcycle/same"] == 1.0
    origin = load_file(made["experts"] / "checkpoint" / "companions" / "origin.safetensors")
    assert torch.equal(origin["layers.2.down"], seed["model.layers.3.mlp.down_proj.weight"])

    events = rows(made["ternary"], "perplexity_after")
    assert [(row["step"], row["share"]) for row in events] == [(0, 0.25), (2, 0.5), (4, 0.75), (6, 1.0)]
    assert all({"zeros", "error", "perplexity_before"} <= row.keys() for row in events)
    assert configuration(made["ternary"])["phasegate_quantizer"]["use"] == "phasegate:ternary"

    before, after = weights(made["ternary"] / "checkpoint"), weights(made["manifold"] / "checkpoint")
    kept = [name for name in before if ".mlp.gate." not in name]
    assert [name for name in kept if not torch.equal(before[name], after[name])] == []
    placed = weights(made["manifold"] / "steps" / "place")
    moved = {name for name in after if not torch.equal(placed[name], after[name])}
    assert {"model.layers.0.mlp.gate.weight", "model.layers.0.mlp.gate.positions"} <= moved
    assert [name for name in after if name.endswith("gate.positions")] == ["model.layers.0.mlp.gate.positions"]
    logged = rows(made["manifold"], "loss/smooth/same")[-1]
    assert {"loss/fold/drift", "loss/expert-delta/density", "loss/smooth/far", "router/gini"} <= logged.keys()

    capsys.readouterr()
    assert platform("train", str(perspective)) == 0
    assert "0 phases trained, 5 taken from the store" in capsys.readouterr().out


SLOW = pytest.mark.slow


@pytest.mark.parametrize(
    "at",
    [
        pytest.param(("pretrain", 3), marks=SLOW),
        ("distill", 4),  # between two events of the quantizer, so that masks must be found again
        pytest.param(("distill", 7), marks=SLOW),
        ("align", 4),
    ],
)
def test_a_curriculum_that_is_stopped_and_run_again_ends_in_the_same_bits(
    at: tuple[str, int], perspective: Path, platform: Platform, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from phasegate.core.cli.watching import Watch
    from transformers import TrainerCallback

    class Stop(TrainerCallback):  # type: ignore[misc]
        def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            if state.global_step == at[1] - 1:
                signal.raise_signal(signal.SIGTERM)

    assert platform("train", str(perspective), "--store", "whole") == 0
    with monkeypatch.context() as patch:
        patch.setattr(Watch, "callbacks", lambda self, name, tokens: (Stop(),) if name == at[0] else ())
        assert platform("train", str(perspective), "--store", "broken") == 143
    assert platform("train", str(perspective), "--store", "broken") == 0
    whole, again = stages(tmp_path / "whole"), stages(tmp_path / "broken")
    for name, folder in whole.items():
        expected, found = bits(folder), bits(again[name])
        assert [path for path in expected if found.get(path) != expected[path]] == []


def test_one_line_swaps_the_router_the_mixer_and_the_quantizer(
    perspective: Path, platform: Platform, tmp_path: Path
) -> None:
    swaps = (
        "--set=phases.manifold.options.router=linear",
        "--set=model.mixer=attention",
        "--set=phases.ternary.options.quantizer=null",
    )
    assert platform("train", str(perspective), *swaps, "--gates", "warn") == 0
    found = configuration(stages(tmp_path / "store")["manifold"])
    assert (found["router"], found["mixer"]) == ("phasegate:linear", "phasegate:attention")
    assert not found.get("phasegate_quantizer")


def test_ternary_experts_are_packed_and_loaded_with_equal_logits_and_deltas_lead_between_them(
    perspective: Path, platform: Platform, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert platform("train", str(perspective)) == 0
    made = stages(tmp_path / "store")
    capsys.readouterr()
    assert platform("export", made["manifold"].name, "packed", "--packed") == 0
    assert "at 1.6" in capsys.readouterr().out  # 5 weights to a byte, but for the last byte of a matrix

    import phasegate
    from phasegate.core.model.loading import load_model
    from phasegate.registry.plugins import Plugins
    from transformers import AutoModelForCausalLM

    registry = Plugins.load(()).components()
    model, packed = load_model(made["manifold"] / "checkpoint", registry), load_model(tmp_path / "packed", registry)
    ids = torch.randint(5, 590, (2, 40), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        assert torch.equal(model.eval()(ids).logits, packed(ids).logits)
    said = phasegate.load(tmp_path / "packed").generate(input_ids=ids[:1], max_new_tokens=4, do_sample=False)
    assert said.sequences.shape[1] > 40
    with pytest.raises(OSError, match=r"model\.safetensors"):  # it would fill the experts at random
        AutoModelForCausalLM.from_pretrained(tmp_path / "packed")

    assert platform("deltas", made["manifold"].name, "deltas") == 0
    # Barely trained experts differ in half of their weights, where a whole expert is smaller than what leads to it.
    files = {path.name for path in (tmp_path / "deltas").iterdir()}
    assert files == {f"expert_{expert:03d}.trit" for expert in range(1, 8)}
    assert "12 of 12 deltas" in capsys.readouterr().out  # the edges of the 2 x 2 x 2 torus
    assert platform("export", made["differentiation"].name, "other", "--packed") == 2
    assert "not quantized" in capsys.readouterr().err
    assert not (tmp_path / "other").exists()


def test_a_dense_stock_model_becomes_its_moe_sibling_inside_a_run(
    perspective: Path, platform: Platform, tmp_path: Path
) -> None:
    text = TINY[: TINY.index("model:")] + (
        "model: {use: stock, family: qwen3, overrides: {hidden_size: 32, intermediate_size: 16, num_hidden_layers: 2, "
        "num_attention_heads: 2, num_key_value_heads: 2, tie_word_embeddings: true}}\n"
    )
    text += TINY[TINY.index("tokenizer:") : TINY.index("phases:")]
    text += """phases:
  seed: {use: dense-seed, options: {steps: 3, twin: false}, gates: {knowledge: {at_least: 0.0, documents: 40}}}
  experts:
    use: expert-initialization
    steps: {upcycle: {options: {experts: 4, top_k: 2, breaker: noise}}}
    gates: {knowledge-kept: {at_least: -1.0, documents: 40}, drift: {documents: 28}}
"""
    perspective.write_text(text, encoding="utf-8")
    assert platform("train", str(perspective)) == 0
    made = stages(tmp_path / "store")
    assert configuration(made["seed"])["model_type"] == "qwen3"
    assert configuration(made["experts"])["model_type"] == "qwen3_moe"
    (cloned,) = rows(made["experts"], "upcycle/difference")
    assert cloned["upcycle/difference"] < 5e-5 and cloned["upcycle/same"] == 1.0


def test_experts_grow_by_duplication_within_a_phase(perspective: Path, platform: Platform, tmp_path: Path) -> None:
    arguments = ("--set=phases.experts.options.growth=2", "--set=order=seed>experts")
    assert platform("train", str(perspective), *arguments) == 0
    made = stages(tmp_path / "store")
    assert weights(made["experts"] / "checkpoint")["model.layers.0.mlp.experts.down_proj"].shape[0] == 32
    assert [row["grow/experts"] for row in rows(made["experts"], "grow/experts")] == [16.0, 32.0]
    assert all(row["grow/difference"] < 5e-5 for row in rows(made["experts"], "grow/difference"))


def test_an_extension_trains_on_without_converting_again(perspective: Path, platform: Platform, tmp_path: Path) -> None:
    policy = "policy={on_fail: extend, extensions: 1, then: advance, extend_by: 0.5}"
    impossible = [f"--set=phases.{name}.{policy}" for name in ("seed", "experts", "manifold")]
    impossible += ["--set=phases.seed.gates.knowledge.at_least=1.0", "--set=phases.experts.gates.drift.at_most=-9.0"]
    impossible += ["--set=phases.manifold.gates.same-expert.at_least=1.0"]
    assert platform("train", str(perspective), *impossible) == 0
    made = stages(tmp_path / "store")
    facts = {name: json.loads((folder / "manifest.json").read_text())["facts"] for name, folder in made.items()}
    trained = {name: [attempt["steps"] for attempt in told["attempts"]] for name, told in facts.items()}
    assert trained["seed"][1] == {"pretrain": 3} and trained["manifold"][1] == {"align": 4}
    assert len(trained["experts"]) == 1
    assert "no step of the phase can go on" in facts["experts"]["decision"]["reason"]
    assert (made["seed"] / "steps" / "twin" / "model.safetensors").is_file()
    assert len(rows(made["manifold"], "reroute/nll_after")) == 1


@pytest.mark.parametrize(
    "change,told",
    [
        ("phases.manifold.steps.place.router.grid=[3, 2, 2]", "one cell for each of the 8 experts"),
        ("phases.ternary.steps.distill.quantizer.shares=[0.2, 0.4, 0.6, 0.9]", "never all quantized"),
        ("phases.ternary.steps.distill.quantizer.events=[0.0, 0.5, 0.75, 1.0]", "must be"),
        ("model.start=sparse", "it has experts by then"),
        ("order=seed>differentiation", "requires 'experts'"),
        ("model.attention_every=9", "no layer of 4 with attention"),
        ("model.intermediate_size=24", "cannot be cloned from an FFN of width 24"),
        ("phases.manifold.steps.place.router=torsu", "Did you mean 'torus'"),
        ("phases.manifold.steps.place.router=null", "set router, such as torus"),
        ("phases.seed.steps.pretrain.quantizer=ternary", "needs a model with experts"),
        ("phases.experts.steps.upcycle.options.breaker=hammer", "breaker"),
        ("phases.ternary.steps.distill.options.direction=sideways", "direction"),
        ("phases.ternary.steps.distill.options.teacher=differentation", "Did you mean 'differentiation'"),
        ("phases.experts.steps.upcycle.options.top_k=9", "cannot pass 9 of 8 experts"),
        ("phases.experts.steps.upcycle.freeze=[router]", "trains nothing"),
        ("phases.experts.steps.upcycle.options={breaker: none, strength: 0.5}", "no effect with breaker none"),
        ("model.quantizer=ternary", "has none yet"),
        ("phases.manifold.steps.align.quantizer=ternary", "quantized by then"),
    ],
)
def test_bad_input_is_one_sentence_before_anything_is_trained(
    change: str, told: str, perspective: Path, platform: Platform, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert platform("train", str(perspective), f"--set={change}") == 2
    said = capsys.readouterr().err
    assert told in said and "Traceback" not in said
    assert not list((tmp_path / "store").glob("*/COMPLETE"))


def test_a_dense_model_of_an_unsupported_form_is_refused_by_name(
    perspective: Path, platform: Platform, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from transformers import GPT2Config, GPT2LMHeadModel

    GPT2LMHeadModel(GPT2Config(n_embd=32, n_layer=1, n_head=2, vocab_size=600, n_positions=64)).save_pretrained(
        tmp_path / "gpt2"
    )
    start, stop = TINY.index("model:"), TINY.index("tokenizer:")
    perspective.write_text(f"{TINY[:start]}model: {{use: stock, path: gpt2}}\n{TINY[stop:]}", encoding="utf-8")
    capsys.readouterr()
    assert platform("train", str(perspective)) == 2
    said = capsys.readouterr().err
    assert "gpt2" in said and "llama" in said and "Traceback" not in said
