"""What the trainer costs: a step with every loss and statistic on, against a bare PyTorch loop, in one process.

    python benchmarks/overhead.py --size 18m           the trainer against the bare loop, fp32
    python benchmarks/overhead.py --size nano          the same where a step takes some 45 ms
    python benchmarks/overhead.py --dense              MoE against a dense model of equal active size, fp32 and bf16

Windows alternate: after each window of trainer steps, a callback runs a window of bare steps on a twin of the model
over the same batches. A window's ratio compares it with the mean of its two neighbours, so slow drift cancels.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from phasegate.core.config.schema import Ref, StepSection, Weight
from phasegate.core.model.builder import ModelContext
from phasegate.core.model.parameters import routers_of
from phasegate.core.training.collating import causal_batch
from phasegate.core.training.job import StepJob, build_trainer
from phasegate.core.training.release import release
from phasegate.core.training.terms import LossSetup, WeightedLoss
from phasegate.registry.plugins import Plugins
from transformers import PreTrainedModel, Qwen3Config, Qwen3ForCausalLM, TrainerCallback

DOMAINS = ("general", "code", "science", "books", "portuguese", "mathematics", "structured")
RATE = 1e-5  # small, so that both models stay the ones they were and route alike


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """A model and the batch it is timed with; ``steps`` per window."""

    hidden: int
    layers: int
    heads: int
    expert: int
    experts: int
    top_k: int
    vocab: int
    length: int
    rows: int
    steps: int
    documents: int  # per row


SIZES = {
    "18m": Size(
        hidden=256,
        layers=6,
        heads=8,
        expert=384,
        experts=9,
        top_k=2,
        vocab=4096,
        length=256,
        rows=16,
        steps=4,
        documents=2,
    ),
    "100m": Size(
        hidden=512,
        layers=8,
        heads=8,
        expert=768,
        experts=9,
        top_k=2,
        vocab=4096,
        length=256,
        rows=16,
        steps=2,
        documents=2,
    ),
    "nano": Size(
        hidden=64,
        layers=3,
        heads=4,
        expert=64,
        experts=9,
        top_k=1,
        vocab=1536,
        length=64,
        rows=16,
        steps=20,
        documents=4,
    ),
}


def build(size: Size, registry: Any) -> PreTrainedModel:
    """The platform's own MoE."""
    derived = {
        "hidden_size": size.hidden,
        "num_hidden_layers": size.layers,
        "num_attention_heads": size.heads,
        "head_dim": size.hidden // size.heads,
        "moe_intermediate_size": size.expert,
        "num_experts": size.experts,
        "num_experts_per_tok": size.top_k,
        "initializer_range": 0.02,
    }
    context = ModelContext(
        registry=registry,
        router=Ref(use="linear"),
        derived=derived,
        vocab_size=size.vocab,
        sequence_length=size.length,
    )
    model: PreTrainedModel = registry.build("model", "moe", {}, context=context).build(seed=0)
    model.config.use_cache = False
    return model


def build_dense(size: Size) -> PreTrainedModel:
    """A dense model whose every token passes as many parameters as in the MoE."""
    config = Qwen3Config(
        vocab_size=size.vocab,
        hidden_size=size.hidden,
        num_hidden_layers=size.layers,
        num_attention_heads=size.heads,
        num_key_value_heads=size.heads,
        head_dim=size.hidden // size.heads,
        intermediate_size=size.expert * size.top_k,
        tie_word_embeddings=True,
        max_position_embeddings=size.length,
        use_cache=False,
    )
    return Qwen3ForCausalLM(config)


def rows_of(size: Size, steps: int) -> Dataset:
    """Random tokens in packed rows, each row of one domain."""
    random = np.random.default_rng(0)
    count, piece = steps * size.rows, size.length // size.documents
    tokens = random.integers(0, size.vocab, (count, size.length))
    positions = np.tile(np.arange(piece), (count, size.documents))
    domains = random.integers(0, len(DOMAINS), count)
    return Dataset.from_dict({"input_ids": tokens, "position_ids": positions, "labels": tokens, "domain": domains})


@dataclass(frozen=True, slots=True)
class Span:
    """Wall seconds, and CPU seconds of this process, which other processes disturb less."""

    wall: float
    cpu: float

    @classmethod
    def now(cls) -> Span:
        """The clocks."""
        return cls(time.perf_counter(), time.process_time())

    def __sub__(self, other: Span) -> Span:
        return Span(self.wall - other.wall, self.cpu - other.cpu)


class BareLoop:
    """Forward, backward, clipping, AdamW, schedule: what any training loop does, and nothing else."""

    def __init__(self, model: PreTrainedModel, batches: list[dict[str, torch.Tensor]], bf16: bool = False) -> None:
        self.model = model.train()
        self.optimizer = torch.optim.AdamW(model.parameters(), lr=RATE, betas=(0.9, 0.95), weight_decay=0.1, fused=True)
        self.scheduler = torch.optim.lr_scheduler.LambdaLR(self.optimizer, lambda step: 1.0)
        self.batches = [{key: value for key, value in batch.items() if key != "domain"} for batch in batches]
        self.bf16 = bf16
        self.number = 0

    def run(self, steps: int) -> Span:
        """The time of that many steps."""
        start = Span.now()
        for _ in range(steps):
            batch = self.batches[self.number % len(self.batches)]
            self.number += 1
            with torch.autocast("cpu", torch.bfloat16, enabled=self.bf16):
                loss = self.model(**batch)["loss"]
            loss.backward()
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
            self.optimizer.step()
            self.scheduler.step()
            self.optimizer.zero_grad()
        return Span.now() - start


class Alternate(TrainerCallback):
    """Times windows of trainer steps and runs a bare window after each; the first pair is warm-up."""

    def __init__(self, bare: BareLoop, steps: int) -> None:
        self.bare, self.steps = bare, steps
        self.trainer_windows: list[Span] = []
        self.bare_windows: list[Span] = []

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        self.start = Span.now()

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        # The first step of the next window carries this step's log, which every window has once.
        if state.global_step % self.steps == 0:
            self.trainer_windows.append(Span.now() - self.start)
            self.bare_windows.append(self.bare.run(self.steps))
            self.start = Span.now()


def losses_of(model: PreTrainedModel, registry: Any) -> tuple[WeightedLoss, ...]:
    """Every built-in loss term, the balance term with a schedule."""
    routers = routers_of(model)
    setup = LossSetup(
        model=model,
        domains=DOMAINS,
        experts=int(routers[0][2].num_experts),
        top_k=int(routers[0][2].top_k),
        layers=len(routers),
        world_size=1,
        accumulate=1,
    )
    weights: dict[str, Weight | float] = {
        "balance": Weight(start=0.05, end=0.01),
        "domain-entropy": 0.3,
        "loss-free-bias": 1.0,
        "z": 1e-3,
    }
    return tuple(
        WeightedLoss(name=name, loss=registry.build("loss", name, {}, setup=setup), weight=weight, options={})
        for name, weight in weights.items()
    )


def measure_trainer(size: Size, windows: int, losses: bool) -> tuple[list[Span], list[Span]]:
    """Window seconds of the trainer and of the bare loop."""
    registry = Plugins.load(()).components()
    model, twin = build(size, registry), build(size, registry)
    steps = size.steps * (windows + 1)
    rows = rows_of(size, steps)
    view = rows.with_format("numpy")
    batches = [
        causal_batch([view[i] for i in range(n * size.rows, (n + 1) * size.rows)]) for n in range(min(steps, 50))
    ]
    alternate = Alternate(BareLoop(twin, batches), size.steps)
    with tempfile.TemporaryDirectory() as folder:
        trainer = build_trainer(
            StepJob(
                objective="causal",
                model=model,
                tokenizer=None,
                train=rows,
                heldout=None,
                replay=None,
                section=StepSection(steps=steps, rows=size.rows, learning_rate=RATE, schedule="constant", warmup=0.0),
                losses=losses_of(model, registry) if losses else (),
                domains=DOMAINS,
                seed=0,
                folder=Path(folder),
                logging_steps=min(size.steps, 20),
                save_steps=steps,
                callbacks=[alternate],
            )
        )
        trainer.train()
        release(trainer)
    return alternate.trainer_windows[1:], alternate.bare_windows[1:]


def measure_dense(size: Size, windows: int, bf16: bool) -> tuple[list[Span], list[Span]]:
    """Window seconds of the MoE and of the dense model, both in the bare loop."""
    registry = Plugins.load(()).components()
    view = rows_of(size, 8).with_format("numpy")
    batches = [causal_batch([view[i] for i in range(n * size.rows, (n + 1) * size.rows)]) for n in range(8)]
    moe, dense = BareLoop(build(size, registry), batches, bf16), BareLoop(build_dense(size), batches, bf16)
    times = [(moe.run(size.steps), dense.run(size.steps)) for _ in range(windows + 1)][1:]
    return [first for first, _ in times], [second for _, second in times]


def report(title: str, names: tuple[str, str], size: Size, pair: tuple[list[Span], list[Span]]) -> None:
    """Print the windows and the median of second / first: the first's speed relative to the second's."""
    subject, baseline = pair
    print(f"{title}: {len(subject)} alternating windows of {size.steps} steps, {torch.get_num_threads()} thread(s)")
    tokens = size.rows * size.length * size.steps
    for name, series in zip(names, pair, strict=True):
        speeds = sorted(tokens / span.wall for span in series)
        wall, cpu = (1000 * statistics.median(values) / size.steps for values in zip(*map(_both, series), strict=True))
        print(
            f"  {name:10s} {statistics.median(speeds):8.0f} tokens/s [{speeds[0]:.0f}-{speeds[-1]:.0f}]"
            f"  {wall:8.2f} ms/step wall  {cpu:8.2f} ms/step CPU"
        )
    for number, clock in enumerate(("wall", "CPU")):
        ratios = []
        for window, span in enumerate(subject):
            around = [_both(other)[number] for other in baseline[max(0, window - 1) : window + 1]]
            ratios.append(statistics.mean(around) / _both(span)[number])
        shown = " ".join(f"{ratio:.3f}" for ratio in ratios)
        print(f"  ratio {names[0]} / {names[1]}, {clock}: median {statistics.median(ratios):.3f}  windows {shown}")


def _both(span: Span) -> tuple[float, float]:
    return span.wall, span.cpu


def main() -> None:
    """Read the command line and measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=sorted(SIZES), default="18m")
    parser.add_argument("--dense", action="store_true", help="MoE against dense instead of trainer against bare loop")
    parser.add_argument("--windows", type=int, default=15, help="windows that count, at least 7")
    parser.add_argument("--threads", type=int, default=None)
    parser.add_argument("--no-losses", action="store_true", help="the trainer without loss terms, for comparison")
    options = parser.parse_args()
    if options.windows < 7:
        parser.error("fewer than 7 windows say nothing on a shared machine")
    if options.threads:
        torch.set_num_threads(options.threads)
    size = SIZES[options.size]
    if options.dense:
        for bf16 in (False, True):
            pair = measure_dense(size, options.windows, bf16)
            report(f"{options.size}, {'bf16 autocast' if bf16 else 'fp32'}", ("moe", "dense"), size, pair)
    else:
        pair = measure_trainer(size, options.windows, not options.no_losses)
        what = "statistics only" if options.no_losses else "every loss and statistic"
        report(f"{options.size}, fp32, {what}", ("trainer", "bare loop"), size, pair)


if __name__ == "__main__":
    main()
