"""Two processes train as one process does on the same global batches."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file
from torch.testing import assert_close

WORKER = """
import json, os, sys
from pathlib import Path

import numpy as np
import torch
from datasets import ClassLabel, Dataset
from phasegate.core.config.schema import Ref, ReplaySection, StepSection
from phasegate.core.model.builder import ModelContext
from phasegate.core.training.checkpoint import latest_complete
from phasegate.core.training.job import StepJob, build_trainer, world_size
from phasegate.core.training.release import release
from phasegate.core.training.terms import LossSetup, WeightedLoss
from phasegate.registry.plugins import Plugins
from safetensors.torch import save_file
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast, TrainerCallback

torch.set_num_threads(1)
out, objective, steps, resume = Path(sys.argv[1]), sys.argv[2], 3, sys.argv[3] == "resume"
domains, vocabulary, rows = ("general", "code", "science"), 48, 8
random = np.random.default_rng(0)
registry = Plugins.load(()).components()
derived = dict(hidden_size=16, num_hidden_layers=2, num_attention_heads=2, head_dim=8, moe_intermediate_size=8,
               num_experts=4, num_experts_per_tok=2, initializer_range=0.2)
context = ModelContext(registry=registry, router=Ref(use="linear"), derived=derived, vocab_size=vocabulary,
                       sequence_length=32)
make = lambda seed: registry.build("model", "moe", {}, context=context).build(seed=seed)
model = make(9 if resume else 0)
# A parameter that only a loss term uses: it must not upset data parallelism.
model.probe = torch.nn.Parameter(torch.zeros(1))
words = ["<pad>", "<eos>", "<unk>", *(f"w{n}" for n in range(vocabulary - 3))]
backend = Tokenizer(models.WordLevel({word: n for n, word in enumerate(words)}, unk_token="<unk>"))
backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, pad_token="<pad>", eos_token="<eos>", unk_token="<unk>",
    chat_template="{% for m in messages %}{{ m['role'] }} {{ m['content'] }} {% endfor %}")


class Probe:
    def __call__(self, ctx):
        return model.probe.sum()

    def after_step(self): ...

    def state_dict(self):
        return {}

    def load_state_dict(self, state): ...


class Replay:
    def batch(self, step, micro, rank, world):
        g = torch.Generator().manual_seed(step)
        ids = torch.randint(3, vocabulary, (7, 10), generator=g)
        mask = (torch.arange(10) < torch.randint(4, 11, (7, 1), generator=g)).long()
        batch = dict(input_ids=ids * mask, position_ids=torch.arange(10).expand(7, 10), attention_mask=mask,
                     labels=torch.where(mask.bool(), ids, -100), domain=torch.arange(7) % 3)
        return {k: v[micro * world + rank :: accumulate * world] for k, v in batch.items()}


class Watch(TrainerCallback):
    def __init__(self):
        self.gradients = {}

    def on_pre_optimizer_step(self, args, state, control, model=None, **_):
        for name, parameter in model.named_parameters():
            self.gradients[f"{state.global_step}/{name.removeprefix('module.')}"] = parameter.grad.clone()


count, accumulate = steps * rows, 2
if objective == "causal":
    tokens = random.integers(3, vocabulary, (count, 12))
    data = dict(input_ids=tokens, position_ids=np.tile(np.arange(6), (count, 2)), labels=tokens)
elif objective == "sft":
    lengths = random.integers(6, 15, count)
    data = dict(input_ids=[random.integers(3, vocabulary, n).tolist() for n in lengths],
                assistant_masks=[[0] * (n - n // 3) + [1] * (n // 3) for n in lengths])
elif objective == "contrast":
    # Rows of one kind and rows without a second answer in every place: some micro-batches have none of a term's.
    sides = [[random.integers(3, vocabulary, n).tolist() for n in random.integers(6, 15, count)] for _ in range(2)]
    spoken = [[[0] * (len(ids) - 3) + [1] * 3 for ids in side] for side in sides]
    for number in range(2, count, 3):
        sides[1][number], spoken[1][number] = [], []
    data = dict(input_ids=sides[0], assistant_masks=spoken[0], rejected_ids=sides[1], rejected_masks=spoken[1],
                kind=[0, 1, 2, 2, 1, 1, 3, 2] * steps)
else:
    say = lambda role, n: [{"role": role, "content": " ".join(f"w{i}" for i in random.integers(0, 44, n))}]
    data = dict(prompt=[say("user", 4) for _ in range(count)], chosen=[say("assistant", 3) for _ in range(count)],
                rejected=[say("assistant", 3) for _ in range(count)])
train = Dataset.from_dict(data | {"domain": random.integers(-1, 3, count)})
if objective == "contrast":
    train = train.cast_column("kind", ClassLabel(names=["benign", "general", "harmful", "medical"]))
setup = LossSetup(model=model, domains=domains, experts=4, top_k=2, layers=2, world_size=world_size(), accumulate=2)
build = lambda name, **o: registry.build("loss", name, o, setup=setup)
weights = {"balance": 0.5, "z": 0.01, "loss-free-bias": 1.0}
losses = [WeightedLoss(name=n, loss=build(n), weight=w, options={}) for n, w in weights.items()]
losses.append(WeightedLoss(name="domain-entropy", loss=build("domain-entropy", general_floor=1.2), weight=0.3,
                           options={}))
if objective == "contrast":
    terms = {"harm-avoidance": 1.0, "over-refusal": 2.0, "domain-helpfulness": 0.5}
    losses += [WeightedLoss(name=n, loss=build(n), weight=w, options={}) for n, w in terms.items()]
losses.append(WeightedLoss(name="probe", loss=Probe(), weight=0.5, options={}))
seen = []
model.register_forward_pre_hook(
    lambda m, a, kw: seen.append(kw["input_ids"].tolist()) if torch.is_grad_enabled() else None, with_kwargs=True)
watch = Watch()
section = StepSection(steps=steps, rows=rows, accumulate=accumulate, learning_rate=1e-3, warmup=0.0, clip=0.0,
                      activation_checkpointing=objective == "sft",
                      replay=ReplaySection(rows=7, weight=0.5) if objective != "causal" else ReplaySection())
job = StepJob(objective=objective, model=model, tokenizer=tokenizer, train=train, heldout=None,
              replay=None if objective == "causal" else Replay(), section=section, losses=tuple(losses),
              domains=domains, seed=0, folder=out / "job", logging_steps=1, save_steps=2, callbacks=[watch],
              reference=make(1).requires_grad_(False).eval() if objective == "dpo" else None)
trainer = build_trainer(job)
rank, world = trainer.args.process_index, trainer.args.world_size
trainer.train(resume_from_checkpoint=str(out / "job" / "checkpoint-2") if resume else None)
(out / f"seen-{rank}.json").write_text(json.dumps(seen))
if rank == 0:
    save_file(watch.gradients, out / "gradients.safetensors")
    save_file({k: v.clone() for k, v in model.state_dict().items() if k != "lm_head.weight"}, out / "model.safetensors")
    state = {f"{t.name}/{k}": v for t in losses for k, v in t.loss.state_dict().items()}
    save_file(state, out / "losses.safetensors")
    (out / "logs.json").write_text(json.dumps(trainer.state.log_history))
    assert latest_complete(out / "job").name == "checkpoint-3"
assert world == world_size()
release(trainer)
if world > 1:
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()
"""


def _train(folder: Path, objective: str, processes: int, mode: str = "fresh") -> Path:
    out = folder / f"{objective}-{processes}"
    out.mkdir(exist_ok=True)
    script = folder / "worker.py"
    script.write_text(WORKER)
    launcher = [sys.executable]
    if processes > 1:
        launcher += ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(processes)]
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    command = [*launcher, str(script), str(out), objective, mode]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, cwd=folder, timeout=300)
    assert done.returncode == 0, done.stderr[-4000:]
    return out


def _logs(out: Path) -> list[dict[str, float]]:
    rows: list[dict[str, Any]] = json.loads((out / "logs.json").read_text())
    return [row for row in rows if "loss" in row]


@pytest.mark.slow
@pytest.mark.parametrize("objective", ["causal", "sft", "dpo", "contrast"])
def test_two_processes_equal_one_with_the_same_global_batch(tmp_path: Path, objective: str) -> None:
    one, two = (_train(tmp_path, objective, processes) for processes in (1, 2))
    first, second = load_file(one / "gradients.safetensors"), load_file(two / "gradients.safetensors")
    assert set(first) == set(second)
    for name in (name for name in first if name.startswith("0/")):
        assert_close(second[name], first[name], rtol=1e-3, atol=1e-6, msg=lambda text, n=name: f"{n}: {text}")
    assert float(first["0/probe"]) == pytest.approx(0.5)
    assert float(second["0/probe"]) == pytest.approx(0.5)
    for expected, found in zip(_logs(one), _logs(two), strict=True):
        for key, value in expected.items():
            if key.startswith(("loss", "router", "grad_norm")):
                assert found[key] == pytest.approx(value, rel=1e-3, abs=1e-5), (expected["step"], key)
    windows, others = load_file(one / "losses.safetensors"), load_file(two / "losses.safetensors")
    for name, window in windows.items():
        assert_close(others[name], window, rtol=1e-6, atol=0.0)
    bits, others = load_file(one / "model.safetensors"), load_file(two / "model.safetensors")
    bias = "model.layers.1.mlp.gate.selection_bias"
    assert bits[bias].abs().max() > 0.0
    assert_close(others[bias], bits[bias])


@pytest.mark.slow
def test_the_ranks_share_every_global_batch_between_them(tmp_path: Path) -> None:
    one, two = (_train(tmp_path, "causal", processes) for processes in (1, 2))
    whole = json.loads((one / "seen-0.json").read_text())
    ranks = [json.loads((two / f"seen-{rank}.json").read_text()) for rank in range(2)]
    for step in range(3):
        batch = [row for micro in whole[2 * step : 2 * step + 2] for row in micro]
        shared = [row for rank in ranks for micro in rank[2 * step : 2 * step + 2] for row in micro]
        assert len(shared) == 8
        assert sorted(shared) == sorted(batch)


@pytest.mark.slow
def test_two_processes_resume_in_the_same_bits(tmp_path: Path) -> None:
    straight = load_file(_train(tmp_path, "causal", 2) / "model.safetensors")
    resumed = load_file(_train(tmp_path, "causal", 2, "resume") / "model.safetensors")
    assert all(straight[name].equal(resumed[name]) for name in straight)
