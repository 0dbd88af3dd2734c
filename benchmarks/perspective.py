"""What parts of the Perspective curriculum give and cost: torus or linear router, ternary experts or full precision.

    python benchmarks/perspective.py train --work FOLDER --seeds 0 1 2 --workers 2   trains what is missing, then:
    python benchmarks/perspective.py table --work FOLDER --seeds 0 1 2               prints tables
    python benchmarks/perspective.py time --threads 1                                times steps: ratios in one process

Variants share all stages before the one that they change, over one store. Differences are paired by document within a
seed and then averaged over seeds, with Student's interval; they are at equal tokens.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from phasegate.core.config.schema import Ref
from phasegate.core.model.builder import ModelContext
from phasegate.evals.intervals import t_quantile
from phasegate.evals.measurement import Measurement
from phasegate.evals.records import read_measurements
from phasegate.registry.plugins import Plugins

FOUR = "order=seed>experts>differentiation>ternary"
VARIANTS: Mapping[str, Sequence[str]] = {
    "torus": (),
    "linear": ("phases.manifold.options.router=linear",),
    "full": ("phases.ternary.options.quantizer=null", FOUR),
    "smallest": ("phases.ternary.options.order=smallest", FOUR),
    "soft": ("phases.ternary.options.order=soft", FOUR),
    "reverse": ("phases.ternary.options.direction=reverse", FOUR),
}
Found = Mapping[str, Measurement]


def train(work: Path, seeds: Sequence[int], workers: int, more: Sequence[str]) -> None:
    """Run every variant for every seed; what the store has is not trained again."""

    def run(seed: int) -> None:
        for name, sets in VARIANTS.items():
            overrides = [f"--set={text}" for text in (f"name={name}-{seed}", f"seed={seed}", *sets)]
            command = Path(sys.executable).with_name("platform")
            print(f"seed {seed}, {name}", flush=True)
            with (work / f"{name}-{seed}.log").open("w") as log:
                arguments = [str(command), "train", "perspective-nano", *overrides, *more]
                subprocess.run(arguments, cwd=work, stdout=log, stderr=subprocess.STDOUT, check=True)

    work.mkdir(parents=True, exist_ok=True)
    with ThreadPoolExecutor(workers) as pool:
        list(pool.map(run, seeds))


def stage(work: Path, name: str, seed: int, phase: str) -> Path:
    """The folder of a phase of the latest run of a variant."""
    runs = work / "runs" / f"{name}-{seed}"
    if not runs.is_dir():
        raise SystemExit(f"'{work}' has no run {name}-{seed}; train it first: perspective.py train --work {work}")
    run = max(runs.iterdir())
    rows = json.loads((run / "stages.json").read_text())["stages"]
    return work / "store" / next(str(row["stage"]) for row in rows if row["phase"] == phase)


def evidence(folder: Path) -> dict[str, Found]:
    """What was measured after a phase, by gate."""
    found: dict[str, Found] = {}
    for path in sorted((folder / "evidence").glob("*-????????.json")):
        found.setdefault(path.name[:-14], read_measurements(path))
    return found


def over_seeds(values: Sequence[float]) -> str:
    """Mean and Student's 95 % interval over seeds, or the mean alone of one."""
    mean = statistics.fmean(values)
    if math.isnan(mean):
        return "–"
    if len(values) < 2:
        return f"{mean:.4f}"
    half = t_quantile(0.975, len(values) - 1) * statistics.stdev(values) / math.sqrt(len(values))
    return f"{mean:.4f} [{mean - half:.4f}, {mean + half:.4f}]"


def paired(one: Found, other: Found, metric: str) -> float:
    """The mean difference over the documents that both measured."""
    left, right = one[metric].per_document, other[metric].per_document
    shared = sorted(left.keys() & right.keys())
    return statistics.fmean(left[name] - right[name] for name in shared)


def table(work: Path, seeds: Sequence[int]) -> None:
    """Print both comparisons, and what every event of the quantizer did."""
    print("\nstage 5, a new router for frozen ternary experts, at equal tokens: torus, linear, difference\n")
    parts: dict[str, dict[int, dict[str, Found]]] = {
        name: {seed: evidence(stage(work, name, seed, "manifold")) for seed in seeds} for name in ("torus", "linear")
    }
    old = {seed: evidence(stage(work, "torus", seed, "ternary")) for seed in seeds}
    rows: list[tuple[str, Callable[[dict[str, Found], int], float]]] = [
        ("nats per token", lambda found, seed: found["perplexity"]["nll"].value),
        ("… against the old router", lambda found, seed: paired(found["perplexity"], old[seed]["perplexity"], "nll")),
        ("questions answered", lambda found, seed: found["choice"]["acc"].value),
        ("Gini of the load", lambda found, seed: found["routing"]["gini"].value),
        ("same expert as the token before", lambda found, seed: found["torus"]["same"].value),
        ("codes that differ, all pairs", lambda found, seed: found["experts"]["density_all"].value),
        ("codes that differ, neighbours", lambda found, seed: found["experts"]["density"].value),
    ]
    for label, value in rows:
        by_name = [[value(parts[name][seed], seed) for seed in seeds] for name in ("torus", "linear")]
        cells = [*by_name, [torus - linear for torus, linear in zip(*by_name, strict=True)]]
        print(f"| {label} | {' | '.join(map(over_seeds, cells))} |")
    print("\nhops of consecutive tokens on the torus: same, one, two, far")
    for name in ("same", "one_hop", "two_hop", "far"):
        print(f"  {name}: {over_seeds([parts['torus'][seed]['torus'][name].value for seed in seeds])}")
    print("\nstage 4, at equal tokens: nats per token, difference from full precision, questions answered\n")
    base = {seed: evidence(stage(work, "full", seed, "ternary")) for seed in seeds}
    for name in ("full", "torus", "smallest", "soft", "reverse"):
        found = {seed: evidence(stage(work, name, seed, "ternary")) for seed in seeds}
        nll = over_seeds([found[seed]["perplexity"]["nll"].value for seed in seeds])
        cost = over_seeds([paired(found[seed]["perplexity"], base[seed]["perplexity"], "nll") for seed in seeds])
        acc = over_seeds([found[seed]["choice"]["acc"].value for seed in seeds])
        print(f"| {'largest first' if name == 'torus' else name} | {nll} | {cost} | {acc} |")
    print("\nevents (seed, order, step, share, zeros, error, perplexity before, after)")
    for seed in seeds:
        for name in ("torus", "smallest", "soft"):
            for row in events(stage(work, name, seed, "ternary")):
                cells = (f"{row[key]:.3f}" for key in ("share", "zeros", "error"))
                change = f"{row['perplexity_before']:.3f} -> {row['perplexity_after']:.3f}"
                print(f"  {seed} {'largest' if name == 'torus' else name} {row['step']} {' '.join(cells)} {change}")


def events(folder: Path) -> Iterator[dict[str, Any]]:
    """What the log says of the quantizer's events."""
    for line in (folder / "metrics.jsonl").read_text().splitlines():
        row = json.loads(line)
        if "perplexity_after" in row:
            yield row


def model_of(**parts: Ref) -> Any:
    """The preset's MoE, random, with these parts."""
    derived = {
        "head_dim": 16,
        "hidden_size": 64,
        "initializer_range": 0.06,
        "moe_intermediate_size": 128,
        "num_attention_heads": 4,
        "num_experts": 8,
        "num_experts_per_tok": 1,
        "num_hidden_layers": 4,
    }
    registry = Plugins.load(()).components()
    gate = {"gate": "straight-through"}
    given: dict[str, Any] = {"router": Ref(use="linear", options=gate), "mixer": Ref(use="pdr", options={"rank": 32})}
    context = ModelContext(registry=registry, derived=derived, vocab_size=1536, sequence_length=64, **(given | parts))
    options = {"dense_layers": (3,), "window": 32, "num_key_value_heads": 2}
    return registry.build("model", "moe", options, context=context).build(0)


def step(model: Any, optimizer: torch.optim.Optimizer, batch: Mapping[str, torch.Tensor]) -> None:
    model(**batch, labels=batch["input_ids"], use_cache=False).loss.backward()
    optimizer.step()
    optimizer.zero_grad()


def timing(windows: int, steps: int) -> None:
    """Print the time of a training step of each part as a ratio to its plain counterpart, windows alternating."""
    gate = {"gate": "straight-through"}
    plain, pairs = model_of(), {
        "torus / linear router": model_of(router=Ref(use="torus", options=gate)),
        "ternary / full-precision experts": model_of(quantizer=Ref(use="ternary")),
        "PDR / attention": model_of(),
    }  # fmt: skip
    attention = model_of(mixer=Ref(use="attention"))
    generator = torch.Generator().manual_seed(0)
    batch = {
        "input_ids": torch.randint(5, 1500, (16, 64), generator=generator),
        "position_ids": torch.cat([torch.arange(20), torch.arange(44)]).expand(16, 64),
    }
    for name, model in pairs.items():
        against = attention if name.startswith("PDR") else plain
        sides = [(one, torch.optim.AdamW(one.parameters(), lr=1e-5, fused=True)) for one in (against, model)]
        seconds: list[list[float]] = [[], []]
        for window in range(2 * windows + 2):
            side = window % 2
            begun = time.perf_counter()
            for _ in range(steps):
                step(*sides[side], batch)
            if window > 1:
                seconds[side].append((time.perf_counter() - begun) / steps)
        ratios = [new / old for old, new in zip(*seconds, strict=True)]
        low, high = min(ratios), max(ratios)
        plain_ms, new_ms = (1e3 * statistics.median(part) for part in seconds)
        ratio = statistics.median(ratios)
        print(f"{name}: {ratio:.3f} [{low:.3f}, {high:.3f}], {plain_ms:.1f} -> {new_ms:.1f} ms, {windows} windows")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("train", "table", "time"))
    parser.add_argument("--work", type=Path, default=Path("perspective-benchmark"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--windows", type=int, default=15)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--platform", nargs="*", default=[], help="further arguments of platform train")
    given = parser.parse_args()
    if given.what == "time":
        torch.set_num_threads(given.threads)
        timing(given.windows, given.steps)
        return
    if given.what == "train":
        train(given.work, given.seeds, given.workers, given.platform)
    table(given.work, given.seeds)


if __name__ == "__main__":
    main()
