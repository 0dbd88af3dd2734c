"""Two processes distil as one process does on the same global batches."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.torch import load_file
from torch.testing import assert_close

WORKER = """
import sys
from pathlib import Path

import numpy as np
import torch
from datasets import Dataset
from phasegate.core.config.schema import StepSection
from phasegate.core.model.draft_start import DraftShape, build_draft
from phasegate.core.training.job import StepJob, build_trainer
from safetensors.torch import save_file
from transformers import Qwen3MoeConfig, Qwen3MoeForCausalLM, TrainerCallback

torch.set_num_threads(1)
torch.manual_seed(0)
sizes = dict(vocab_size=48, hidden_size=16, head_dim=8, num_hidden_layers=2, num_attention_heads=2,
             num_key_value_heads=2, num_experts=4, num_experts_per_tok=1, moe_intermediate_size=8)
teacher = Qwen3MoeForCausalLM(Qwen3MoeConfig(**sizes, initializer_range=0.5, pad_token_id=0)).eval()
student = build_draft(teacher, DraftShape(hidden_size=8), 1)
random = np.random.default_rng(0)
tokens = random.integers(3, 48, (16, 12))
# Rows differ in how many tokens are learnt, so that a mean over rows or processes would not do.
learnt = np.arange(12)[None] >= random.integers(2, 11, (16, 1))
rows = Dataset.from_dict(dict(input_ids=tokens, position_ids=np.tile(np.arange(6), (16, 2)),
                              labels=np.where(learnt, tokens, -100), domain=[-1] * 16))


class Watch(TrainerCallback):
    gradients = {}

    def on_pre_optimizer_step(self, args, state, control, model=None, **_):
        for name, parameter in model.named_parameters():
            self.gradients[f"{state.global_step}/{name.removeprefix('module.')}"] = parameter.grad.clone()


out = Path(sys.argv[1])
section = StepSection(objective="draft", steps=2, rows=8, accumulate=2, learning_rate=1e-3, warmup=0.0, clip=0.0)
job = StepJob(objective="draft", model=student, tokenizer=None, train=rows, heldout=None, replay=None, section=section,
              losses=(), domains=("general",), seed=0, folder=out / "job", reference=teacher, logging_steps=1,
              callbacks=[Watch()])
trainer = build_trainer(job)
trainer.train()
if trainer.args.process_index == 0:
    losses = torch.tensor([row["loss/task"] for row in trainer.state.log_history if "loss/task" in row])
    save_file(Watch.gradients | {"losses": losses}, out / "found.safetensors")
if trainer.args.world_size > 1:
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()
"""


@pytest.mark.slow
def test_two_processes_learn_what_one_learns(tmp_path: Path) -> None:
    (tmp_path / "worker.py").write_text(WORKER)
    found = []
    for processes in (1, 2):
        out = tmp_path / str(processes)
        out.mkdir()
        launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"] if processes > 1 else []
        command = [sys.executable, *launcher, str(tmp_path / "worker.py"), str(out)]
        environment = os.environ | {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, cwd=tmp_path, timeout=300)
        assert done.returncode == 0, done.stderr[-4000:]
        found.append(load_file(out / "found.safetensors"))
    assert set(found[0]) == set(found[1])
    for name in (name for name in found[0] if name.startswith("0/")):
        assert_close(found[1][name], found[0][name], rtol=1e-3, atol=1e-6, msg=lambda text, n=name: f"{n}: {text}")
    assert_close(found[1]["losses"], found[0]["losses"], rtol=1e-4, atol=1e-6)
