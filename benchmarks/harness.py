"""What a benchmark costs beyond the model: BLiMP through the harness and bare forward passes of the same batches.

    python benchmarks/harness.py --data-dir DATA --model FOLDER     a model on disk
    python benchmarks/harness.py --data-dir DATA --size 18m         a random model of that size

The batches are those that the harness gave the model, caught on their way. The bare loop puts each through the model,
takes log-probabilities, and adds up those of the tokens that come next. Both alternate; a repeat's ratio is that of
neighbours, so slow drift cancels.
"""

from __future__ import annotations

import argparse
import cProfile
import pstats
import statistics
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from overhead import SIZES, Span, build
from phasegate.core.model.loading import load_model
from phasegate.core.model.tokenizer import load_tokenizer, train_tokenizer
from phasegate.evals.benchmarks import BenchmarkRequest, run_benchmark
from phasegate.evals.undisturbed import undisturbed
from phasegate.registry.plugins import Plugins

PARADIGMS = 67  # of BLiMP; documents are spread evenly over them


class Harness:
    """The benchmark as ``platform eval`` runs it, without the cache: data read, tasks built, scored and counted."""

    def __init__(self, model: Any, tokenizer: Any, request: Callable[[Path], BenchmarkRequest]) -> None:
        self.model, self.tokenizer, self.request = model, tokenizer, request
        self.batches: list[torch.Tensor] = []

    def run(self) -> Span:
        """The time of one benchmark."""
        with tempfile.TemporaryDirectory() as folder:
            start = Span.now()
            found = run_benchmark(self.model, self.tokenizer, self.request(Path(folder)))
            took = Span.now() - start
        assert found.missing is None, found.missing
        self.pairs = found.measurements["acc"].n
        return took

    def catch(self) -> None:
        """Run once and keep what the model was given."""
        hook = self.model.register_forward_pre_hook(self._keep, with_kwargs=True)
        try:
            self.run()
        finally:
            hook.remove()

    def _keep(self, module: Any, positional: Sequence[Any], named: dict[str, Any]) -> None:
        self.batches.append(positional[0] if positional else named["input_ids"])


def bare(model: Any, batches: Sequence[torch.Tensor]) -> Span:
    """The time of the forward passes and of the log-probabilities of the next tokens."""
    total = 0.0
    with undisturbed(model), torch.inference_mode():
        start = Span.now()
        for ids in batches:  # shape: (B, T)
            found = model(input_ids=ids).logits.log_softmax(-1)
            total += float(found[:, :-1].gather(-1, ids[:, 1:, None]).sum())
        took = Span.now() - start
    assert total < 0
    return took


def load(options: argparse.Namespace) -> tuple[Any, Any]:
    """The model that is asked for, and its tokenizer."""
    registry = Plugins.load(()).components()
    if options.model is not None:
        return load_model(options.model, registry), load_tokenizer(options.model)
    size = SIZES[options.size]
    path = next(Path(options.data_dir).glob("evals/blimp/*.jsonl.gz"))
    from phasegate.evals.processing import read_jsonl

    texts = [row["sentence_good"] for row in read_jsonl(path)]
    return build(size, registry), train_tokenizer(texts, size.vocab)


def main() -> None:
    """Read the command line and measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path, required=True)
    parser.add_argument("--model", type=Path, help="a checkpoint or an export")
    parser.add_argument("--size", choices=sorted(SIZES), default="18m", help="without --model")
    parser.add_argument("--pairs", type=int, default=15 * PARADIGMS)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=None)
    parser.add_argument("--profile", action="store_true", help="where the harness spends its time")
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    model, tokenizer = load(options)
    harness = Harness(
        model,
        tokenizer,
        lambda folder: BenchmarkRequest(
            task="blimp",
            root=options.data_dir,
            folder=folder,
            documents=options.pairs,
            batch_size=options.batch_size,
            seed=0,
            max_length=None,
            allow_code=False,
        ),
    )
    harness.catch()  # and warm up
    tokens = sum(batch.numel() for batch in harness.batches)
    rows = [(harness.run(), bare(model, harness.batches)) for _ in range(options.repeats)]
    parameters = sum(parameter.numel() for parameter in model.parameters())
    print(
        f"{harness.pairs} pairs, {len(harness.batches)} batches, {tokens} tokens, {parameters:,} parameters, "
        f"{torch.get_num_threads()} thread(s), {options.repeats} repeats"
    )
    for clock in ("wall", "cpu"):
        whole, own = ([getattr(span, clock) for span in series] for series in zip(*rows, strict=True))
        ratios = sorted(one / other for one, other in zip(whole, own, strict=True))
        print(
            f"  {clock:4s}  harness {statistics.median(whole):7.3f} s  bare {statistics.median(own):7.3f} s  "
            f"overhead median {statistics.median(ratios) - 1:+.1%} [{ratios[0] - 1:+.1%}, {ratios[-1] - 1:+.1%}]"
        )
    if options.profile:
        profile = cProfile.Profile()
        profile.runcall(harness.run)
        pstats.Stats(profile).sort_stats("cumulative").print_stats(45)


if __name__ == "__main__":
    main()
