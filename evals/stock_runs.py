"""Stock benchmarks made ready to run, on a local copy or on the hub's data."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..registry.errors import ConfigError, DataError
from ..registry.suggest import did_you_mean
from .bridge import Evaluation, evaluate_tasks, load_tasks
from .measurement import Measurement
from .stock import (
    places,
    shares,
    stock_config,
    stock_digests,
    stock_folder,
    stock_members,
    write_code_task,
    write_stock,
)
from .stock_needs import lacking, steady_languages
from .stock_scores import measure_stock
from .stock_tasks import StockTask

if TYPE_CHECKING:
    from .benchmarks import BenchmarkRequest


@dataclass(frozen=True, slots=True, kw_only=True)
class StockRun:
    """One stock task and one request for it."""

    name: str
    task: StockTask
    request: BenchmarkRequest

    def config(self) -> Mapping[str, Any]:
        """Everything that makes prompts and scores but data: the stock files by digest, and what replaces them."""
        task, request = self.task, self.request
        known = stock_members(task)
        unknown = [member for member in request.subtasks if member not in known]
        if unknown:
            raise ConfigError(f"benchmark '{self.name}' has no '{unknown[0]}'.{did_you_mean(unknown[0], known)}")
        found: dict[str, Any] = {
            "benchmark": self.name,
            "revision": task.revision,
            "fewshot": self._fewshot(),
            "metrics": dict(task.metrics),
            "files": stock_digests(task, request.subtasks or known),
        }
        return found | ({"subtasks": sorted(request.subtasks)} if request.subtasks else {})

    def data(self) -> Mapping[str, Any]:
        """File and SHA-256 of a local copy, or the hub's name of a data set; ``DataError`` where there is no copy."""
        if self.request.root is None:
            return {"dataset": self.task.hub, "split": self.task.split}
        found = {"file": self.request.path or self.task.file, "sha256": self._sha256(self._source())}
        examples = self._examples()
        if examples is not None:
            found |= {"examples": str(self.task.examples), "examples_sha256": self._sha256(examples)}
        return found

    def lacking(self) -> str | None:
        """What has to be installed or allowed first."""
        return lacking(self.name, self.task, self.request.allow_code)

    def measure(self, model: Any, tokenizer: Any) -> tuple[dict[str, Measurement], Mapping[str, Any]]:
        """Ask the documents and read the task's metrics; and what there is to say of the data that was asked."""
        local = self.request.root is not None
        loaded, tasks, facts = self._local() if local else self._hub()
        with steady_languages(self.task):
            found = evaluate_tasks(
                model,
                tokenizer,
                loaded,
                batch_size=self.request.batch_size,
                seed=self.request.seed,
                max_length=self.request.max_length,
                whole=True,
                fewshot=self.request.fewshot,
                select=None if local else self._selection(loaded),
                allow_code=self.request.allow_code,
                errors=False,
            )
        samples = {member: found.samples[task] for member, task in tasks.items()}
        facts["rows"] = sum(len(members) for members in samples.values())
        if found.longer:
            facts["longer"] = found.longer
        if self.task.needs == "code":
            from .sandbox import run_program

            facts["network"] = "cut off" if run_program("").offline else "not cut off: the system does not allow it"
        evidence = dict(facts.pop("evidence", {"benchmark": self.name}))
        self._keep(found)
        return measure_stock(self.task, samples, self._categories(samples), evidence), facts

    def _local(self) -> tuple[Any, Mapping[str, str], dict[str, Any]]:
        source = self._source()
        pack = write_stock(
            self.request.folder, self.name, source, self.request.subtasks, self.request.documents, self._examples()
        )
        facts = {"subset": self._subset(pack.held), "evidence": pack.evidence}
        return load_tasks(pack.folder, sorted(pack.tasks.values())), pack.tasks, facts

    def _hub(self) -> tuple[Any, dict[str, str], dict[str, Any]]:
        """The stock tasks as they are, from lm-eval's own folder, on the hub's data or what was kept of it."""
        from datasets.exceptions import DatasetsError

        task = self.task
        members = self.request.subtasks or stock_members(task) or (self.name,)
        folder = (stock_folder() / task.stock).parent
        if task.needs == "code":
            folder = write_code_task(self.request.folder, self.name, task)
        tasks = {member: task.name.format(member) for member in members}
        try:
            loaded = load_tasks(folder, list(tasks.values()))
        except (OSError, ValueError, DatasetsError) as error:
            raise DataError(
                f"benchmark '{self.name}' cannot load the hub's data set '{task.hub}' ({_first_line(error)}): run it "
                f"once while online, or give a data folder that holds {task.file} (--data-dir)."
            ) from error
        kept = self._shares(loaded)
        loaded = {"tasks": {n: t for n, t in loaded["tasks"].items() if n in kept}, "groups": {}, "group_map": {}}
        facts: dict[str, Any] = {"sha256": _documents_digest(loaded), "subset": "the split as the hub has it"}
        return loaded, {member: name for member, name in tasks.items() if name in kept}, facts

    def _shares(self, loaded: Any) -> dict[str, int]:
        sizes = {name: len(task.eval_docs) for name, task in loaded["tasks"].items()}
        return shares(sizes, self.request.documents, self.task.weighted)

    def _selection(self, loaded: Any) -> Any:
        counts = self._shares(loaded)

        def select(name: str, docs: Sequence[Mapping[str, Any]]) -> list[int]:
            return places(docs, counts[name])

        return None if self.request.documents is None else select

    def _fewshot(self) -> int:
        if self.request.fewshot is not None:
            return self.request.fewshot
        first = (self.request.subtasks or stock_members(self.task) or ("",))[0]
        return int(stock_config(self.task, first).get("num_fewshot") or 0)

    def _source(self) -> Path:
        assert self.request.root is not None
        file = self.request.path or self.task.file
        return self._there(self.request.root / file, file)

    def _examples(self) -> Path | None:
        """The file of few-shot examples where any are shown."""
        if self.request.root is None or not self._fewshot():
            return None
        if self.task.examples is None:
            raise ConfigError(
                f"benchmark '{self.name}' has no local few-shot examples: leave fewshot out, or measure it without a "
                "data folder."
            )
        return self._there(self.request.root / self.task.examples, self.task.examples)

    def _there(self, path: Path, file: str) -> Path:
        if not path.is_file():
            raise DataError(
                f"benchmark '{self.name}' needs {file} under the data root {self.request.root}, which is not there: "
                f"put it there, or measure without a data folder while online (hub data set '{self.task.hub}')."
            )
        return path

    @staticmethod
    def _sha256(path: Path) -> str:
        return hashlib.sha256(path.read_bytes()).hexdigest()

    def _subset(self, held: int) -> str:
        part = f"{held:,} of {self.task.official:,} documents" if held < self.task.official else "all documents"
        split = f"{part} of the official {self.task.split} split"
        return f"{split}; {self.task.remark}" if self.task.remark else split

    def _categories(self, members: Mapping[str, Any]) -> dict[str, str]:
        """What lm-eval's tags call a member: MMLU's stem, humanities, social sciences, other."""
        if not self.task.tags:
            return {}
        before, _, after = self.task.tags.partition("{}")
        tags = {member: str(stock_config(self.task, member).get("tag")) for member in members}
        return {member: tag.removeprefix(before).removesuffix(after) for member, tag in tags.items()}

    def _keep(self, found: Evaluation) -> None:
        """The answers beside the task files, as evidence."""
        self.request.folder.mkdir(parents=True, exist_ok=True)
        with (self.request.folder / f"answers-{self.name}.jsonl").open("w", encoding="utf-8") as file:
            for task, samples in found.samples.items():
                for sample in samples:
                    entry = {"task": task, "hash": sample.hash, "answers": sample.answers} | {
                        "metrics": dict(sample.metrics)
                    }
                    file.write(json.dumps(entry, ensure_ascii=False) + "\n")


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"


def _documents_digest(loaded: Any) -> str:
    """SHA-256 over all documents of the tasks, in order."""
    digest = hashlib.sha256()
    for name in sorted(loaded["tasks"]):
        for row in loaded["tasks"][name].eval_docs:
            digest.update(json.dumps(row, sort_keys=True, ensure_ascii=False, default=str).encode())
    return digest.hexdigest()
