from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from phasegate.core.config.schema import Ref
from phasegate.core.model.anchors import Guard
from phasegate.core.model.companions import attach, companions_of, trunk_digest
from phasegate.core.model.exporting import export_model
from phasegate.core.model.loading import load_model, save_model
from phasegate.core.model.mixer import MixerBase, MixerContext
from phasegate.core.model.packed import pack_model
from phasegate.core.model.parameters import routers_of
from phasegate.core.model.probes import Probes
from phasegate.core.model.quantization import quantize_experts
from phasegate.plugins.quantizers.options import TernaryConfig
from phasegate.plugins.quantizers.ternary import Ternary
from phasegate.registry.components import MixerSpec
from phasegate.registry.entries import Entry
from phasegate.registry.errors import StoreError
from phasegate.registry.registry import Registry
from safetensors.torch import load_file, save_file

READER = """
import json, sys
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer, pipeline
folder, work = sys.argv[1:]
model, info = AutoModelForCausalLM.from_pretrained(folder, output_loading_info=True)
tokenizer = AutoTokenizer.from_pretrained(folder)
with torch.no_grad():
    save_file({"logits": model(load_file(work + "/in.safetensors")["ids"]).logits}, work + "/out.safetensors")
generate = pipeline("text-generation", model=folder)
chat = [{"role": "user", "content": "what is the capital of brum ?"}]
answer = generate(chat, max_new_tokens=64, do_sample=False)[0]["generated_text"][-1]
print(json.dumps({
    "answer": answer,
    "class": type(model).__name__,
    "ids": tokenizer("the cat ate 345 maçã <end>")["input_ids"],
    "lost": sorted(info["missing_keys"]) + sorted(info["unexpected_keys"]),
    "phasegate": any(name.partition(".")[0] == "phasegate" for name in sys.modules),
}))
"""


def read_without_phasegate(folder: Path, work: Path, ids: torch.Tensor) -> tuple[dict[str, Any], torch.Tensor]:
    save_file({"ids": ids}, work / "in.safetensors")
    done = subprocess.run(
        [sys.executable, "-c", READER, str(folder), str(work)], capture_output=True, text=True, check=False, cwd=work
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1]), load_file(work / "out.safetensors")["logits"]


def test_an_export_is_read_and_run_by_plain_transformers(
    build: Any, tokenizer: Any, registry: Any, ids: torch.Tensor, tmp_path: Path
) -> None:
    model = build(seed=2, options={"rope_theta": 500.0, "dense_layers": [0]})
    save_model(model, tokenizer, tmp_path / "in")
    report = export_model(tmp_path / "in", tmp_path / "out", registry)
    seen, logits = read_without_phasegate(tmp_path / "out", tmp_path, ids)
    with torch.no_grad():
        expected = model(ids).logits
    assert (report.model_type, report.needs_import) == ("qwen3_moe", None)
    assert (seen["class"], seen["lost"], seen["phasegate"]) == ("Qwen3MoeForCausalLM", [], False)
    assert (logits - expected).abs().max() < 1e-5
    assert torch.equal(logits.argmax(-1), expected.argmax(-1))
    assert seen["ids"] == tokenizer("the cat ate 345 maçã <end>")["input_ids"]
    assert seen["answer"]["role"] == "assistant"


def test_an_exported_chat_stops_at_the_end_token(build: Any, tokenizer: Any, registry: Any, tmp_path: Path) -> None:
    model = build(seed=2, options={"tie_word_embeddings": False})
    with torch.no_grad():  # whatever is asked, the answer is <end>
        model.model.norm.weight.fill_(1.0)
        model.lm_head.weight.zero_()
        for layer in model.model.layers:
            layer.self_attn.o_proj.weight.zero_()
            layer.mlp.experts.down_proj.zero_()
        end, prompt_end = (tokenizer.convert_tokens_to_ids(token) for token in ("<end>", "<asst>"))
        model.lm_head.weight[end] = model.model.embed_tokens.weight[prompt_end]
    save_model(model, tokenizer, tmp_path / "in")
    export_model(tmp_path / "in", tmp_path / "out", registry)
    seen, _ = read_without_phasegate(tmp_path / "out", tmp_path, torch.tensor([[prompt_end]]))
    assert seen["answer"]["content"] == ""


@pytest.mark.parametrize(
    ("gate", "top_k", "normalised"),
    [("normalized", 2, True), ("softmax", 1, False), ("softmax", 2, False), ("straight-through", 1, True)],
)
def test_gates_that_a_stock_router_has_become_stock(
    build: Any,
    tokenizer: Any,
    registry: Any,
    ids: torch.Tensor,
    tmp_path: Path,
    gate: str,
    top_k: int,
    normalised: bool,
) -> None:
    model = build(gate=gate, num_experts_per_tok=top_k)
    save_model(model, tokenizer, tmp_path / "in")
    report = export_model(tmp_path / "in", tmp_path / "out", registry)
    exported = load_model(tmp_path / "out", registry)
    assert (report.model_type, exported.config.norm_topk_prob) == ("qwen3_moe", normalised)
    assert (exported.config.router_aux_loss_coef, hasattr(exported.config, "router_options")) == (0.0, False)
    with torch.no_grad():
        torch.testing.assert_close(exported(ids).logits, model(ids).logits, atol=1e-6, rtol=0)


def test_an_export_has_one_file_key_per_expert(build: Any, tokenizer: Any, registry: Any, tmp_path: Path) -> None:
    save_model(build(), tokenizer, tmp_path / "in")
    export_model(tmp_path / "in", tmp_path / "out", registry)
    keys = load_file(tmp_path / "out" / "model.safetensors").keys()
    assert "model.layers.1.mlp.experts.4.down_proj.weight" in keys


def test_a_gate_no_stock_router_has_keeps_its_own_type_and_says_so(
    build: Any, tokenizer: Any, registry: Any, tmp_path: Path
) -> None:
    save_model(build(gate="straight-through"), tokenizer, tmp_path / "in")
    report = export_model(tmp_path / "in", tmp_path / "out", registry)
    assert report.model_type == "phasegate_moe"
    assert report.needs_import == "phasegate.core.model.modeling"
    assert "straight-through" in report.reason


def test_a_selection_bias_keeps_the_own_type_and_says_so(
    build: Any, tokenizer: Any, registry: Any, ids: torch.Tensor, tmp_path: Path
) -> None:
    model = build()
    routers_of(model)[1][2].selection_bias[3] = 0.2
    save_model(model, tokenizer, tmp_path / "in")
    report = export_model(tmp_path / "in", tmp_path / "out", registry)
    assert (report.model_type, report.needs_import) == ("phasegate_moe", "phasegate.core.model.modeling")
    assert "bias" in report.reason
    with torch.no_grad():
        assert torch.equal(load_model(tmp_path / "out", registry)(ids).logits, model(ids).logits)


def test_a_stock_model_stays_what_it_is(context: Any, tokenizer: Any, registry: Any, tmp_path: Path) -> None:
    ready = context()
    model = ready.registry.build("model", "stock", {"family": "olmoe"}, context=ready).build(0)
    save_model(model, tokenizer, tmp_path / "in")
    report = export_model(tmp_path / "in", tmp_path / "out", registry)
    assert (report.model_type, report.needs_import, report.folder) == ("olmoe", None, tmp_path / "out")


def test_an_export_never_overwrites(build: Any, tokenizer: Any, registry: Any, tmp_path: Path) -> None:
    save_model(build(), tokenizer, tmp_path / "in")
    with pytest.raises(StoreError, match=r"already exists"):
        export_model(tmp_path / "in", tmp_path / "in", registry)


def test_a_failed_export_leaves_nothing_behind(registry: Any, build: Any, tokenizer: Any, tmp_path: Path) -> None:
    save_model(build(), tokenizer, tmp_path / "in")
    (tmp_path / "in" / "model.safetensors").unlink()
    with pytest.raises(StoreError):
        export_model(tmp_path / "in", tmp_path / "out", registry)
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


def test_exporting_leaves_global_random_state_alone(build: Any, tokenizer: Any, registry: Any, tmp_path: Path) -> None:
    save_model(build(), tokenizer, tmp_path / "in")
    torch.manual_seed(4)
    state = torch.get_rng_state()
    export_model(tmp_path / "in", tmp_path / "out", registry)
    assert torch.equal(torch.get_rng_state(), state)


class Half(MixerBase):
    """A mixer with the cache and the weights of attention that computes half of it."""

    def __init__(self, *, context: MixerContext) -> None:
        super().__init__()
        self.layer_idx = context.layer
        for name, part in context.attention.named_children():
            self.add_module(name, part)
        self.__dict__["_attention"] = context.attention

    def forward(self, hidden_states: torch.Tensor, *args: Any, **kwargs: Any) -> tuple[torch.Tensor, None]:
        return 0.5 * self.__dict__["_attention"](hidden_states, *args, **kwargs)[0], None

    def init_weights(self, std: float) -> None:
        """The attention's own parts have theirs."""


def test_a_mixer_of_another_kind_keeps_the_own_type_even_with_the_cache_and_weights_of_attention(
    context: Any, tokenizer: Any, registry: Registry, ids: torch.Tensor, tmp_path: Path
) -> None:
    spec = MixerSpec(name="half", target=Half, cache="full_attention")
    with_half = Registry((*registry, Entry(dist="other", version="1", component=spec)))
    ready = dataclasses.replace(context(registry=with_half), mixer=Ref(use="other:half"))
    model = with_half.build("model", "moe", {}, context=ready).build(0).eval()
    save_model(model, tokenizer, tmp_path / "in")
    report = export_model(tmp_path / "in", tmp_path / "out", with_half)
    assert (report.model_type, report.needs_import) == ("phasegate_moe", "phasegate.core.model.modeling")
    assert "its layers mix tokens" in report.reason
    with torch.no_grad():
        assert torch.equal(load_model(tmp_path / "out", with_half).eval()(ids).logits, model(ids).logits)


def quantize(model: Any) -> None:
    quantize_experts(model, "phasegate:ternary", {}, Ternary(TernaryConfig()))


@pytest.mark.parametrize("gate", ["softmax", "straight-through"])
def test_what_was_fitted_to_a_quantized_model_belongs_to_its_export(
    make_probes: Callable[..., Probes],
    build: Any,
    tokenizer: Any,
    with_plane: Registry,
    make_guard: Callable[..., Guard],
    tmp_path: Path,
    gate: str,
) -> None:
    model = build(gate)  # straight-through with two experts per token keeps its own model type
    quantize(model)
    attach(model, "probes", make_probes(trunk_digest(model)))
    attach(model, "anchor", make_guard(model))
    save_model(model, tokenizer, tmp_path / "in")
    export_model(tmp_path / "in", tmp_path / "out", with_plane)
    exported = load_model(tmp_path / "out", with_plane)
    assert {name: found.stale(exported) for name, found in companions_of(exported).items()} == {
        "anchor": False,
        "probes": False,
    }


def test_what_was_fitted_to_other_weights_is_stale_in_an_export_too(
    make_probes: Callable[..., Probes], build: Any, tokenizer: Any, registry: Registry, tmp_path: Path
) -> None:
    model = build()
    quantize(model)
    attach(model, "probes", make_probes(trunk_digest(build(seed=1))))
    save_model(model, tokenizer, tmp_path / "in")
    export_model(tmp_path / "in", tmp_path / "out", registry)
    exported = load_model(tmp_path / "out", registry)
    assert companions_of(exported)["probes"].stale(exported)


def test_the_export_of_a_packed_model_does_not_call_itself_packed(
    build: Any, tokenizer: Any, registry: Registry, tmp_path: Path
) -> None:
    model = build()
    quantize(model)
    save_model(model, tokenizer, tmp_path / "in")
    pack_model(tmp_path / "in", tmp_path / "packed", registry)
    export_model(tmp_path / "packed", tmp_path / "out", registry)
    assert "packed" not in (tmp_path / "out" / "config.json").read_text(encoding="utf-8")
