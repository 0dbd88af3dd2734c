"""Router, mixer and quantizer are exchanged in one line each, and everything works in every combination."""

from __future__ import annotations

import hashlib
import itertools
import json
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

Platform = Callable[..., int]

ROUTERS = ("linear", "torus")
MIXERS = ("attention", "pdr")
QUANTIZERS = ("null", "ternary")
EVERY = list(itertools.product(ROUTERS, MIXERS, QUANTIZERS))
#: Every pair of two parts is among these four; the others are slow.
PAIRWISE = [
    ("linear", "attention", "null"),
    ("linear", "pdr", "ternary"),
    ("torus", "attention", "ternary"),
    ("torus", "pdr", "null"),
]
FEW = [pytest.param(*parts, marks=() if parts in PAIRWISE else pytest.mark.slow) for parts in EVERY]


def changes(router: str, mixer: str, quantizer: str) -> list[str]:
    return [
        "--set=order=foundation",
        f"--set=model.router={router}",
        f"--set=model.mixer={mixer}",
        f"--set=model.quantizer={quantizer}",
    ]


def stage(store: Path, phase: str = "foundation") -> Path:
    (found,) = [path.parent for path in store.glob(f"{phase}-*/COMPLETE")]
    return found


def bits(folder: Path) -> dict[str, str]:
    kept = [path for path in sorted(folder.rglob("*")) if path.is_file() and path.suffix in {".safetensors", ".jsonl"}]
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in kept}


@pytest.mark.parametrize("router,mixer,quantizer", EVERY)
def test_a_combination_trains_is_measured_saved_and_generates(
    router: str, mixer: str, quantizer: str, tiny: Path, platform: Platform, tmp_path: Path
) -> None:
    assert platform("train", str(tiny), *changes(router, mixer, quantizer)) == 0
    made = stage(tmp_path / "store")
    config = json.loads((made / "checkpoint" / "config.json").read_text())
    assert config["router"] == f"phasegate:{router}" and config["mixer"] == f"phasegate:{mixer}"
    assert config["layer_types"] == (
        ["linear_attention", "full_attention"] if mixer == "pdr" else ["full_attention"] * 2
    )
    assert bool(config.get("phasegate_quantizer")) == (quantizer == "ternary")
    verdicts = json.loads((made / "evidence" / "verdicts.json").read_text())  # the harness measured it
    assert {row["criterion"] for row in verdicts} >= {"knowledge", "load-low"}
    assert all(row["value"] is not None for row in verdicts)

    from phasegate.core.model.loading import load_model, save_model
    from phasegate.core.model.quantization import quantization_of
    from phasegate.core.model.tokenizer import load_tokenizer
    from phasegate.registry.plugins import Plugins

    registry = Plugins.load(()).components()
    model, tokenizer = load_model(made / "checkpoint", registry).eval(), load_tokenizer(made / "checkpoint")
    assert (quantization_of(model) is not None) == (quantizer == "ternary")
    ids = torch.randint(5, 590, (2, 40), generator=torch.Generator().manual_seed(1))
    save_model(model, tokenizer, tmp_path / "copy")
    with torch.no_grad():
        logits = model(ids).logits
        assert torch.equal(load_model(tmp_path / "copy", registry).eval()(ids).logits, logits)
    greedy: dict[str, Any] = {"max_new_tokens": 12, "do_sample": False, "pad_token_id": 0, "eos_token_id": None}
    cached = model.generate(ids, attention_mask=torch.ones_like(ids), **greedy)
    assert torch.equal(cached, model.generate(ids, attention_mask=torch.ones_like(ids), use_cache=False, **greedy))
    assert cached.shape == (2, 52)
    padded = torch.nn.functional.pad(ids[:1], (7, 0))
    mask = torch.nn.functional.pad(torch.ones_like(ids[:1]), (7, 0))
    assert torch.equal(model.generate(padded, attention_mask=mask, **greedy)[:, 7:], cached[:1])


@pytest.mark.parametrize("router,mixer,quantizer", FEW)
def test_a_combination_that_is_stopped_and_run_again_ends_in_the_same_bits(
    router: str,
    mixer: str,
    quantizer: str,
    tiny: Path,
    platform: Platform,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    arguments = ["train", str(tiny), *changes(router, mixer, quantizer)]
    assert platform(*arguments, "--store", "whole") == 0
    with monkeypatch.context() as patch:
        stop_at(patch, "pretrain", 5)
        assert platform(*arguments, "--store", "broken") == 143
    assert platform(*arguments, "--store", "broken") == 0
    assert bits(stage(tmp_path / "broken")) == bits(stage(tmp_path / "whole"))


def stop_at(patch: pytest.MonkeyPatch, step: str, at: int) -> None:
    """Let the process get SIGTERM before optimiser step ``at`` of a step."""
    from phasegate.core.cli.watching import Watch
    from transformers import TrainerCallback

    class Stop(TrainerCallback):  # type: ignore[misc]
        def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            if state.global_step == at - 1:
                signal.raise_signal(signal.SIGTERM)

    patch.setattr(Watch, "callbacks", lambda self, name, tokens: (Stop(),) if name == step else ())


@pytest.mark.slow
@pytest.mark.parametrize("router,mixer,quantizer", [("torus", "attention", "ternary"), ("torus", "pdr", "null")])
def test_all_six_phases_run_with_other_parts(
    router: str, mixer: str, quantizer: str, six: Path, platform: Platform, tmp_path: Path
) -> None:
    parts = [part for part in changes(router, mixer, quantizer) if "order" not in part]
    assert platform("train", str(six), *parts, "--gates", "warn") == 0
    verdicts = json.loads((stage(tmp_path / "store", "optimization") / "evidence" / "verdicts.json").read_text())
    identical = next(row for row in verdicts if row["criterion"] == "draft-identical")
    assert identical["value"] == 1.0  # speculative decoding takes proposals back, also from a recurrent state
