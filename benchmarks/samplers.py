"""How many trials a sampler needs to find the best of 720 orders, on landscapes whose best order is known.

    python benchmarks/samplers.py                          5 seeds, some two minutes on one core
    python benchmarks/samplers.py --seeds 30 --cap 720     the table of the notes; hours with the Gaussian process
    python benchmarks/samplers.py --only precedence tpe/keys

Landscapes (phases are relabelled by lot in every seed, so that no encoding profits from the written order):
``additive``: 15 costs of wrong pairs. ``interact``: with costs of neighbours and of many wrong pairs together.
``adjacent``: costs of neighbours only, which a model of precedence cannot express. ``--noise`` adds a fixed normal
deviation to every order. A cell is the median of trials (seeds that found the best) and of phases trained on a prefix
tree; a seed that did not find it counts as the cap.
"""

from __future__ import annotations

import argparse
import itertools
import os
import statistics
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
import optuna
from optuna.samplers import BaseSampler, GPSampler, NSGAIISampler, RandomSampler, TPESampler
from optuna.trial import Trial
from phasegate.core.study.precedence import PrecedenceSampler
from phasegate.core.study.tree import PrefixTree
from rich.console import Console
from rich.table import Table

PHASES = "abcdef"
ORDERS = [">".join(order) for order in itertools.permutations(PHASES)]
CANDIDATES = {order: order for order in ORDERS}
Score = Callable[[str], float]
GP_CAP = 40  # a trial of the Gaussian process takes some 0.1 s here


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A sampler and how it writes an order down."""

    sampler: Callable[[int], BaseSampler]
    draw: Callable[[Trial], str]
    slow: bool = False


def landscape(kind: str, seed: int, noise: float) -> Score:
    """The score of an order, higher is better; about 0.2 wide."""
    rng = np.random.default_rng(seed)
    pairs, neighbours = rng.exponential(size=(2, 6, 6))
    right = dict(zip(PHASES, rng.permutation(6), strict=True))
    deviation = dict(zip(ORDERS, rng.normal(scale=noise, size=len(ORDERS)), strict=True))

    def score(order: str) -> float:
        places = [int(right[phase]) for phase in order.split(">")]
        wrong = [(second, first) for first, second in itertools.combinations(places, 2) if first > second]
        cost = 0.0
        if kind != "adjacent":
            cost += 0.05 * sum(pairs[pair] for pair in wrong)
        if kind == "interact":
            cost += 0.002 * len(wrong) ** 1.5
        if kind != "additive":
            cost += 0.03 * sum(neighbours[pair] for pair in itertools.pairwise(places))
        return deviation[order] - cost

    return score


def as_one(trial: Trial) -> str:
    order: str = trial.suggest_categorical("order", ORDERS)
    return order


def as_keys(trial: Trial) -> str:
    """Phases sorted by a number each."""
    keys = {phase: trial.suggest_float(phase, 0, 1) for phase in PHASES}
    return ">".join(sorted(PHASES, key=lambda phase: (keys[phase], phase)))


def as_bits(trial: Trial) -> str:
    """Phases sorted by how many others each precedes (Copeland), one bit for every pair."""
    wins = dict.fromkeys(PHASES, 0)
    for first, second in itertools.combinations(PHASES, 2):
        wins[first if trial.suggest_int(first + second, 0, 1) else second] += 1
    return ">".join(sorted(PHASES, key=lambda phase: (-wins[phase], phase)))


def precedence(seed: int, aware: bool = True) -> BaseSampler:
    return PrecedenceSampler(CANDIDATES, seed=seed, cost_aware=aware)


SAMPLERS = {
    "precedence": Entry(sampler=precedence, draw=as_one),
    "precedence, cost ignored": Entry(sampler=partial(precedence, aware=False), draw=as_one),
    "gp/bits": Entry(sampler=lambda seed: GPSampler(seed=seed), draw=as_bits, slow=True),
    "tpe/keys": Entry(sampler=lambda seed: TPESampler(seed=seed, multivariate=False), draw=as_keys),
    "tpe/keys, multivariate": Entry(sampler=lambda seed: TPESampler(seed=seed), draw=as_keys),
    "tpe/order": Entry(sampler=lambda seed: TPESampler(seed=seed, multivariate=False), draw=as_one),
    "nsga2/keys": Entry(sampler=lambda seed: NSGAIISampler(seed=seed, population_size=20), draw=as_keys),
    "random": Entry(sampler=lambda seed: RandomSampler(seed=seed), draw=as_one),
}


def search(entry: Entry, score: Score, seed: int, cap: int) -> tuple[int, int, bool]:
    """Trials, phases trained, and whether the best order was found; a repeated order costs a trial and no phase."""
    best = max(map(score, ORDERS))
    study = optuna.create_study(direction="maximize", sampler=entry.sampler(seed))
    tree: PrefixTree[str] = PrefixTree()
    for number in range(1, cap + 1):
        trial = study.ask()
        order = entry.draw(trial)
        tree.add(order.split(">"))
        study.tell(trial, score(order))
        if score(order) == best:
            return number, tree.shared, True
    return cap, tree.shared, False


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--cap", type=int, default=100)
    parser.add_argument("--gp-cap", type=int, default=GP_CAP, help="cap of the Gaussian process")
    parser.add_argument("--noise", type=float, default=0.0)
    parser.add_argument("--landscapes", nargs="+", default=["additive", "interact", "adjacent"])
    parser.add_argument("--only", nargs="+", choices=SAMPLERS, default=list(SAMPLERS))
    options = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.filterwarnings("ignore")

    console = Console(width=120)
    table = Table(title=f"{options.seeds} seeds, at most {options.cap} trials, noise {options.noise:g}")
    table.add_column("sampler/encoding")
    for kind in options.landscapes:
        table.add_column(kind, justify="right")
    table.add_column("phases, first", justify="right")
    table.add_column("ms/trial", justify="right")
    for name in options.only:
        entry, cells, phases, spent, count = SAMPLERS[name], [], "", 0.0, 0
        cap = min(options.cap, options.gp_cap) if entry.slow else options.cap
        for kind in options.landscapes:
            began = time.perf_counter()
            found = [search(entry, landscape(kind, s, options.noise), s, cap) for s in range(options.seeds)]
            spent += time.perf_counter() - began
            count += sum(trials for trials, _, _ in found)
            hits = sum(hit for _, _, hit in found)
            middle = statistics.median(trials for trials, _, _ in found)
            cells.append(f"{'>' if hits * 2 < len(found) else ''}{middle:g} ({hits})")
            phases = phases or f"{statistics.median(shared for _, shared, _ in found):g}"
        table.add_row(name, *cells, phases, f"{1000 * spent / count:.0f}")
        console.print(f"{name}: {', '.join(cells)}")
    console.print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, optuna {optuna.__version__}")
    console.print(table)


if __name__ == "__main__":
    main()
