"""Refusal sets as benchmarks of our own, which lm-eval has none of: harmful prompts, and harmless ones that look it."""

from __future__ import annotations

import csv
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..registry.errors import ConfigError, DataError
from .bridge import Sample, evaluate_tasks, load_tasks
from .chat import stop_tokens
from .measurement import Measurement
from .packs import choose, write_pack
from .refusals import REFUSALS
from .summary import summarise

if TYPE_CHECKING:
    from .benchmarks import BenchmarkRequest

#: New tokens of an answer: refusals are told by their beginning.
ANSWER_TOKENS = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class RefusalSet:
    """A file of prompts under the data root; ``safe`` tells, by a column and its value, those that are to be answered.

    ``official`` is the number of prompts of the set as published at ``origin``.
    """

    file: str
    official: int
    origin: str
    safe: tuple[str, str] | None = None
    metrics: tuple[str, ...] = ("refused",)
    revision: int = 1


SETS: dict[str, RefusalSet] = {
    # Zou et al. 2023, 2307.15043
    "advbench": RefusalSet(
        file="safety/advbench/prompts.csv", official=520, origin="github.com/llm-attacks/llm-attacks"
    ),
    # Mazeika et al. 2024, 2402.04249
    "harmbench": RefusalSet(
        file="safety/harmbench/prompts_standard.csv", official=200, origin="github.com/centerforaisafety/HarmBench"
    ),
    # Röttger et al. 2023, 2308.01263
    "xstest": RefusalSet(
        file="safety/xstest/xstest_prompts_odd.csv",
        official=450,
        origin="github.com/paul-rottger/exaggerated-safety",
        safe=("label", "safe"),
        metrics=("over_refused", "refused", "answered"),
    ),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class RefusalRun:
    """One refusal set and one request for it.

    Prompts are put through the tokenizer's chat template and answered greedily. ``refused`` is the share of harmful
    prompts whose answer begins like a refusal (``evals/refusals.py``); of safe ones ``over_refused`` is that share and
    ``answered`` that of answers which are neither empty nor a refusal.
    """

    entry: RefusalSet
    request: BenchmarkRequest

    def config(self) -> Mapping[str, Any]:
        """How answers are asked for and judged; ``ConfigError`` for options that refusal sets have not."""
        for option in ("subtasks", "fewshot"):
            if getattr(self.request, option):
                raise ConfigError(f"benchmark '{self.request.task}' has no {option}: leave it out.")
        return {
            "benchmark": self.request.task,
            "of": "phasegate",
            "revision": self.entry.revision,
            "answer_tokens": ANSWER_TOKENS,
            "refusals": REFUSALS,
        }

    def data(self) -> Mapping[str, Any]:
        """File and SHA-256; ``DataError`` where it is not there."""
        return {
            "file": self.request.path or self.entry.file,
            "sha256": hashlib.sha256(self._source().read_bytes()).hexdigest(),
        }

    def lacking(self) -> str | None:
        return None

    def measure(self, model: Any, tokenizer: Any) -> tuple[dict[str, Measurement], Mapping[str, Any]]:
        """Answer the prompts and judge the answers; ``DataError`` where the tokenizer has no chat template."""
        if tokenizer.chat_template is None:
            raise DataError(
                f"benchmark '{self.request.task}' asks in chat form, but the tokenizer has no chat template: measure a "
                "model that was aligned."
            )
        held = self._rows()
        rows = self._chosen(held)
        pack = write_pack(
            self.request.folder,
            "refusal",
            rows,
            {
                "until": [],
                "max_gen_toks": ANSWER_TOKENS,
                "eos_token_id": stop_tokens(tokenizer, model),
                "do_sample": False,
            },
        )
        found = evaluate_tasks(
            model,
            tokenizer,
            load_tasks(pack.folder, [pack.task]),
            batch_size=self.request.batch_size,
            seed=self.request.seed,
            chat=True,
            max_length=self.request.max_length,
            whole=True,
            errors=False,
        )
        samples = found.samples[pack.task]
        with (pack.folder / "answers.jsonl").open("w", encoding="utf-8") as file:
            for sample in samples:
                entry = {"hash": sample.hash, "answers": sample.answers, "metrics": dict(sample.metrics)}
                file.write(json.dumps(entry, ensure_ascii=False) + "\n")
        part = f"{len(held):,} of {self.entry.official:,} prompts" if len(held) < self.entry.official else "all prompts"
        return self._summary(samples, {"benchmark": self.request.task, "pack": pack.task}), {
            "rows": len(samples),
            "subset": f"{part}; the task is phasegate's own, lm-eval has none",
        }

    def _summary(self, samples: Sequence[Sample], evidence: Mapping[str, Any]) -> dict[str, Measurement]:
        harmful = [sample for sample in samples if sample.doc["kind"] == "harmful"]
        safe = [sample for sample in samples if sample.doc["kind"] == "safe"]
        found: dict[str, Measurement] = {}
        if harmful:
            found |= summarise(harmful, {"refused": "proportion"}, evidence=evidence)
        if safe:
            helped = summarise(safe, {"refused": "proportion", "answered": "proportion"}, evidence=evidence)
            found |= {
                "over_refused": replace(helped["refused"], metric="over_refused"),
                "answered": helped["answered"],
            }
        return {name: found[name] for name in self.entry.metrics if name in found}

    def _chosen(self, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """At most so many prompts as were asked for, safe and harmful in the file's proportion."""
        if self.request.documents is None:
            return choose(rows, None)
        from .stock import shares

        sides = {kind: [row for row in rows if row["kind"] == kind] for kind in {row["kind"] for row in rows}}
        counts = shares({kind: len(side) for kind, side in sides.items()}, self.request.documents, weighted=True)
        return [row for kind in sorted(counts) for row in choose(sides[kind], counts[kind])]

    def _rows(self) -> list[dict[str, Any]]:
        source = self._source()
        try:
            with source.open(encoding="utf-8", newline="") as file:
                lines = list(csv.DictReader(file))
        except (OSError, ValueError, csv.Error) as error:
            raise DataError(
                f"benchmark '{self.request.task}' cannot read {source} ({type(error).__name__}: {error}): fetch the "
                "file again."
            ) from error
        columns = {"prompt"} | ({self.entry.safe[0]} if self.entry.safe else set())
        if not lines or not columns <= lines[0].keys():
            raise DataError(
                f"benchmark '{self.request.task}' finds no column {' or '.join(sorted(columns))} in {source}: fetch "
                "the file again."
            )
        truth = json.dumps({"value": "", "refusals": []})
        return [{"system": "", "question": line["prompt"], "truth": truth, "kind": self._kind(line)} for line in lines]

    def _kind(self, line: Mapping[str, str]) -> str:
        if self.entry.safe is None:
            return "harmful"
        column, value = self.entry.safe
        return "safe" if line[column] == value else "harmful"

    def _source(self) -> Path:
        file = self.request.path or self.entry.file
        if self.request.root is None or not (self.request.root / file).is_file():
            where = "a data folder" if self.request.root is None else f"the data root {self.request.root}"
            raise DataError(
                f"benchmark '{self.request.task}' needs {file} under {where}, which is not there: put the prompts of "
                f"{self.entry.origin} there (--data-dir)."
            )
        return self.request.root / file
