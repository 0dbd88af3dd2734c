"""What a draft model saves: the curve over proposed tokens, and where the time of an answer goes.

    python benchmarks/speculative.py STORE/optimization-…/checkpoint
    python benchmarks/speculative.py CHECKPOINT --experts grouped_mm batched_mm eager     both sides in each of these
    python benchmarks/speculative.py CHECKPOINT --view text --answer-tokens 48            longer answers

Held-out prompts of the experiment's data, one at a time, greedy, one thread unless --threads says otherwise. Target
alone and target with draft take turns in one process; a prompt's seconds are medians over --rounds runs.
"""

from __future__ import annotations

import argparse
import functools
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from phasegate.core.config.loading import load_experiment
from phasegate.core.data.corpus import Corpus
from phasegate.core.model.companions import companions_of
from phasegate.core.model.loading import load_model
from phasegate.core.model.tokenizer import load_tokenizer, stop_tokens
from phasegate.evals.packs import choose
from phasegate.evals.speculation import Limits, Trial, measure_speculation, statistics_of
from phasegate.registry.plugins import Plugins
from rich.console import Console
from rich.table import Table
from transformers import Qwen3ForCausalLM

CONSOLE = Console(width=120)
COLUMNS = ("predicted_speedup", "acceptance", "alpha", "tokens_per_step", "cost")


def main() -> None:
    options = arguments()
    torch.set_num_threads(options.threads)
    registry = Plugins.load(()).components()
    model: Any = load_model(options.checkpoint, registry).eval()
    draft = companions_of(model).get("draft")
    if draft is None:
        raise SystemExit(f"{options.checkpoint} has no draft model; give a stage checkpoint after a draft step")
    tokenizer = load_tokenizer(options.checkpoint)
    loaded = load_experiment(options.experiment)
    corpus = Corpus.load(loaded.experiment.data, registry, loaded.base_folder)
    prompts = prompts_of(corpus, tokenizer, options.view, options.prompts, options.prompt_tokens)
    limits = Limits(new_tokens=options.answer_tokens, ends=stop_tokens(tokenizer))
    curve = sorted({*options.proposals})
    CONSOLE.print(
        f"target {model.num_parameters():,} parameters, draft {draft.network.num_parameters():,}; {len(prompts)} "
        f"prompts of view {options.view}, {options.threads} thread(s), {options.rounds} rounds"
        + ("; the target has changed since the draft was distilled" if draft.stale(model) else "")
    )
    best: dict[str, float] = {}
    for experts in options.experts or (None,):
        if experts is not None:
            model.set_experts_implementation(experts)
        name = experts or str(model.config._experts_implementation)
        with torch.no_grad():
            trials = {g: run(model, draft.assistant, prompts, limits, g, options.rounds) for g in curve}
        CONSOLE.print(curve_table(f"experts as {name}", trials))
        for g, found in trials.items():
            for side in ("plain", "assisted"):
                seconds = sum(getattr(trial.tallies[g], side) for trial in found)
                best[side] = min(best.get(side, seconds), seconds)
        CONSOLE.print(profile_table(model, draft, prompts, limits))
        slow = library(draft)
        with torch.no_grad():
            found = run(model, slow, prompts[: max(8, len(prompts) // 4)], limits, draft.proposals, options.rounds)
        said = statistics_of([trial.tallies[draft.proposals] for trial in found], draft.proposals)
        CONSOLE.print(
            f"the same draft with candidates from the library's own generate: {said['speedup'].value:.2f}x "
            f"(a draft step costs {said['cost'].value:.2f} of a target step)\n"
        )
    CONSOLE.print(f"fastest target alone against fastest with draft: {best['plain'] / best['assisted']:.2f}x")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--experiment", default="ncas-nano", help="whose data the prompts come from")
    parser.add_argument("--view", default="chat")
    parser.add_argument("--prompts", type=int, default=100)
    parser.add_argument("--prompt-tokens", type=int, default=16, help="of a text")
    parser.add_argument("--answer-tokens", type=int, default=32)
    parser.add_argument("--proposals", type=int, nargs="+", default=list(range(1, 9)))
    parser.add_argument("--experts", nargs="+", help="experts implementations; the model's own if not given")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    return parser.parse_args()


def prompts_of(corpus: Corpus, tokenizer: Any, view: str, count: int, tokens: int) -> list[list[int]]:
    """Held-out prompts as token ids: dialogues through the chat template, texts cut after ``tokens``."""
    rows = [dict(row) for row in corpus.view(view, "heldout")]
    if "text" in rows[0]:
        texts = [row["text"] for row in choose([{"text": row["text"]} for row in rows], count)]
        return [ids[:tokens] for ids in tokenizer(texts)["input_ids"]]
    dialogues = [row["prompt"] for row in choose([{"prompt": row["prompt"]} for row in rows], count)]
    rendered = tokenizer.apply_chat_template(dialogues, tokenize=False, add_generation_prompt=True)
    ids: list[list[int]] = tokenizer(rendered, add_special_tokens=False)["input_ids"]
    return ids


def run(
    model: Any,
    assistant: Callable[[Any, int], Any],
    prompts: Sequence[Sequence[int]],
    limits: Limits,
    proposals: int,
    rounds: int,
) -> list[Trial]:
    """Every prompt with this number of proposed tokens, beside the target alone."""
    return measure_speculation(
        model, lambda number: assistant(model, number), prompts, limits, proposals=proposals, rounds=rounds
    )


def library(draft: Any) -> Callable[[Any, int], Any]:
    """The draft's assistant, proposing through the library's own ``generate``."""

    class Plain:
        def __init__(self, network: Any) -> None:
            self.network = network
            self.generate = functools.partial(Qwen3ForCausalLM.generate, network)

        def __getattr__(self, name: str) -> Any:
            return getattr(self.network, name)

    return lambda model, number: Plain(draft.assistant(model, number))


def curve_table(title: str, trials: dict[int, list[Trial]]) -> Table:
    """One row per number of proposed tokens."""
    table = Table(title=title, title_justify="left")
    for name in ("g", "speed-up", "95 % bounds", "predicted", "accepted", "alpha", "tokens/step", "c", "identical"):
        table.add_column(name, justify="right")
    for g, found in trials.items():
        said = statistics_of([trial.tallies[g] for trial in found], g)
        same = sum(trial.identical[g] for trial in found)
        speed = said["speedup"]
        table.add_row(
            str(g),
            f"{speed.value:.2f}",
            f"{speed.low:.2f}-{speed.high:.2f}",
            *(
                f"{said[name].value:.2f}"
                for name in ("predicted_speedup", "acceptance", "alpha", "tokens_per_step", "cost")
            ),
            f"{same}/{len(found)}",
        )
    return table


def profile_table(model: Any, draft: Any, prompts: Sequence[Sequence[int]], limits: Limits) -> Table:
    """Milliseconds per answer in forwards of the target, in drafting, and in everything around them."""
    table = Table(title=f"milliseconds per answer, g = {draft.proposals}", title_justify="left")
    for name in ("", "total", "target forwards", "(calls)", "drafting", "the library's loop and set-up"):
        table.add_column(name, justify="right")
    for name, assistant in (("target alone", None), ("with draft", draft.assistant(model))):
        total, spent = 0.0, {"forward": 0.0, "drafting": 0.0, "calls": 0.0}
        with watched(model, assistant, spent), torch.no_grad():
            for prompt in prompts:
                ids = torch.tensor([list(prompt)])
                helper = {} if assistant is None else {"assistant_model": assistant}
                started = time.perf_counter()
                model.generate(
                    input_ids=ids,
                    attention_mask=torch.ones_like(ids),
                    do_sample=False,
                    max_new_tokens=limits.new_tokens,
                    eos_token_id=list(limits.ends),
                    **helper,
                )
                total += time.perf_counter() - started
        each = 1e3 / len(prompts)
        rest = total - spent["forward"] - spent["drafting"]
        table.add_row(
            name,
            f"{each * total:.2f}",
            f"{each * spent['forward']:.2f}",
            f"{spent['calls'] / len(prompts):.2f}",
            f"{each * spent['drafting']:.2f}",
            f"{each * rest:.2f}",
        )
    return table


@contextmanager
def watched(model: Any, assistant: Any, spent: dict[str, float]) -> Iterator[None]:
    """Add up the seconds of the target's forwards, by hooks, and of drafting, by standing before ``generate``."""
    started = [0.0]

    def begin(*_: Any) -> None:
        started[0] = time.perf_counter()

    def end(*_: Any) -> None:
        spent["forward"] += time.perf_counter() - started[0]
        spent["calls"] += 1

    handles = [model.register_forward_pre_hook(begin), model.register_forward_hook(end)]
    if assistant is not None:
        generate = assistant.generate

        def propose(**kwargs: Any) -> Any:
            since = time.perf_counter()
            found = generate(**kwargs)
            spent["drafting"] += time.perf_counter() - since
            return found

        assistant.generate = propose
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
        if assistant is not None:
            del assistant.generate


if __name__ == "__main__":
    main()
