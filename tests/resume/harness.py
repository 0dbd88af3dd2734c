"""Processes that train and are ended, and the comparison of what is left with what an unbroken process leaves.

A child is started by a fork server that has imported what a run imports, so that it is warm within a second and
inherits nothing of the tests.
"""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import random
import runpy
import signal
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

PRELOAD = (
    "phasegate.core.cli.train",
    "phasegate.core.cli.watching",
    "phasegate.core.model.loading",
    "phasegate.core.run.loop",
    "phasegate.core.training.dpo",
    "phasegate.core.training.sft",
    "phasegate.evals.bridge",
    "phasegate.plugins.builtin",
    "lm_eval.evaluator",
    "lm_eval.models.huggingface",
    "lm_eval.tasks",
    "sklearn.cluster",
    "sklearn.isotonic",
    "sklearn.linear_model",
    "scipy.optimize",
    "scipy.stats",
    "transformers.models.qwen3_moe.modeling_qwen3_moe",
)
LIFE = str(Path(__file__).with_name("life.py"))
PATIENCE = 300.0  # seconds that a life may be silent

#: What a repeat may change, and why. Everything else must be the same to the last bit.
EXEMPT: Mapping[str, str] = {
    "manifest.json: created": "when the stage was committed",
    "manifest.json: facts.seconds": "how long training took, in the process that ended it",
    "manifest.json: facts.memory": "what that process needed at most",
    "manifest.json: files, for what is exempt itself": "the digest of a file that holds a time",
    "COMPLETE": "the digest of manifest.json, which the store verifies",
    "evidence/draft-*": "how long decoding took: the gate measures a clock",
    "evidence/verdicts.json: rows of the metric speedup": "the same clock",
    "evidence/**/task.yaml: where the store lies": "the measuring library takes absolute paths only",
    "plan.json: cached": "whether the store had a stage when the last process began",
    "stages.json: reused": "the same, when its turn came",
}

Timeline = Sequence[tuple[str, float]]


def context() -> Any:
    """The fork server, with one thread for each child and everything imported."""
    os.environ |= {"HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1", "OMP_NUM_THREADS": "1"}
    server: Any = multiprocessing.get_context("forkserver")
    server.set_forkserver_preload(list(PRELOAD))
    return server


@dataclass(slots=True, kw_only=True)
class Life:
    """A running process: ``told`` are the events that it has sent, with the child's own clock."""

    process: Any
    events: Any
    log: Path
    told: list[tuple[str, float]] = field(default_factory=list)

    def hear(self, seconds: float) -> bool:
        """Take one more event; False when there was none for so long, ``EOFError`` once the process is gone."""
        if not self.events.poll(seconds):
            return False
        self.told.append(self.events.recv())
        return True

    def wait(self) -> int:
        """Hear it to its end; the exit code, negative for the signal that ended it."""
        try:
            while self.hear(PATIENCE):
                pass
        except (EOFError, OSError):
            pass
        self.process.join(PATIENCE)
        assert self.process.exitcode is not None, f"the process hangs: {self.said()}"
        return int(self.process.exitcode)

    def said(self) -> str:
        """What it printed, of all lives in this folder."""
        return self.log.read_text(encoding="utf-8")

    def error(self) -> str:
        """The last error that it told, without line breaks."""
        return " ".join(self.said().rpartition("error: ")[2].split())


@dataclass(frozen=True, slots=True, kw_only=True)
class Forge:
    """Starts lives of one experiment in one folder, all on the same store."""

    server: Any
    folder: Path
    experiment: str
    settings: tuple[str, ...] = ()

    @property
    def store(self) -> Path:
        return self.folder / "store"

    @property
    def work(self) -> Path:
        """The work folder of the only unfinished stage."""
        (found,) = [path for path in (self.store / ".work").iterdir() if not path.name.startswith(".")]
        return found

    def start(self, *traps: Mapping[str, Any], settings: Iterable[str] = ()) -> Life:
        """Start a life; ``traps`` are what ``life.set_trap`` takes."""
        self.folder.mkdir(parents=True, exist_ok=True)
        path, log = self.folder / "experiment.yaml", self.folder / "log.txt"
        path.write_text(self.experiment, encoding="utf-8")
        log.touch()
        receiving, sending = self.server.Pipe(duplex=False)
        order = {
            "arguments": ["train", str(path), *self.settings, *settings],
            "cwd": str(self.folder),
            "events": sending,
            "log": str(log),
            "traps": list(traps),
        }
        process = self.server.Process(target=runpy.run_path, args=(LIFE, {"ORDER": order}, "life"))
        process.start()
        sending.close()
        return Life(process=process, events=receiving, log=log)

    def run(self, *traps: Mapping[str, Any], settings: Iterable[str] = ()) -> tuple[int, Life]:
        """Start a life and wait for its end."""
        life = self.start(*traps, settings=settings)
        return life.wait(), life

    def finish(self) -> Life:
        """Live until the experiment is done."""
        code, life = self.run()
        assert code == 0, life.said()[-3000:]
        return life


@dataclass(frozen=True, slots=True, kw_only=True)
class Whole:
    """An unbroken run: its folder, and what it told when."""

    forge: Forge
    timeline: Timeline

    def twin(self, folder: Path) -> Forge:
        """The same experiment elsewhere."""
        return Forge(
            server=self.forge.server, folder=folder, experiment=self.forge.experiment, settings=self.forge.settings
        )


def whole(forge: Forge) -> Whole:
    """Run an experiment once without any kill."""
    life = forge.finish()
    return Whole(forge=forge, timeline=tuple(life.told))


@dataclass(slots=True, kw_only=True)
class Kills:
    """Random kills, uniform over the time that the unbroken run took; ``done`` says where each one struck."""

    whole: Whole
    seed: int
    done: list[str] = field(default_factory=list)

    def chain(self, folder: Path, count: int) -> list[str]:
        """Kill a run ``count`` times on its way and let it end; what then differs from the unbroken run.

        A kill aims at a moment of the unbroken run: at what that did last before it, and as long after it. A kill
        that comes after the end does not count.
        """
        generator = random.Random(self.seed + len(self.done))
        start, end = self.whole.timeline[0][1], self.whole.timeline[-1][1]
        moments = sorted(generator.uniform(start, end) for _ in range(count))
        forge = self.whole.twin(folder)
        places = {label: place for place, (label, _) in enumerate(self.whole.timeline)}
        for moment in moments:
            aim = max(place for place, (_, when) in enumerate(self.whole.timeline) if when <= moment)
            life = forge.start()
            struck = strike(life, places, aim, moment - self.whole.timeline[aim][1])
            code = life.wait()
            if struck and code == -signal.SIGKILL:
                self.done.append(life.told[-1][0])
            else:
                assert code == 0, life.said()[-3000:]
                break
        forge.finish()
        return differences(self.whole.forge.folder, forge.folder)


def strike(life: Life, places: Mapping[str, int], aim: int, delay: float) -> bool:
    """Kill a life ``delay`` seconds after it did what stands at ``aim``, or what comes later; False if it ended."""
    try:
        while not life.told or places.get(life.told[-1][0], -1) < aim:
            assert life.hear(PATIENCE), f"the process says nothing any more: {life.said()[-2000:]}"
        until = time.monotonic() + delay
        while (left := until - time.monotonic()) > 0:
            life.hear(left)
        os.kill(life.process.pid, signal.SIGKILL)
    except (EOFError, OSError):
        return False
    return True


def stages(store: Path) -> dict[str, Path]:
    """The committed stages by name."""
    return {path.parent.name: path.parent for path in sorted(store.glob("[!.]*/COMPLETE"))}


def differences(one: Path, other: Path) -> list[str]:
    """Everything in which the stores and the last run folders of two folders differ, but for what is ``EXEMPT``."""
    from phasegate.core.run.store import Store

    found: list[str] = []
    first, second = (stages(folder / "store") for folder in (one, other))
    if first.keys() != second.keys():
        return [f"the stages are {sorted(first)} and {sorted(second)}"]
    for folder in (one, other):
        store = Store(folder / "store")
        for stage in store.list():
            store.verify(stage)
    for name in first:
        found += [f"{name}/{path}" for path in _differing(_content(first[name]), _content(second[name]))]
    found += [f"run/{path}" for path in _differing(_record(one), _record(other))]
    return found


def _differing(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    return sorted(path for path in {*one, *other} if one.get(path) != other.get(path))


def _content(stage: Path) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for path in sorted(stage.rglob("*")):
        name = path.relative_to(stage).as_posix()
        if path.is_dir() or name == "COMPLETE" or _timed(name):
            continue
        if name == "manifest.json":
            manifest = json.loads(path.read_text(encoding="utf-8"))
            del manifest["created"], manifest["facts"]["seconds"], manifest["facts"]["memory"]
            manifest["files"] = {
                file: facts
                for file, facts in manifest["files"].items()
                if not _timed(file)
                and not file.endswith("/task.yaml")
                and not (file == "evidence/verdicts.json" and _has_speed(stage))
            }
            found[name] = manifest
        elif name == "evidence/verdicts.json":
            rows = json.loads(path.read_text(encoding="utf-8"))
            found[name] = [row for row in rows if row["metric"] != "speedup"]
        elif path.name == "task.yaml":
            found[name] = path.read_text(encoding="utf-8").replace(str(stage.parents[1]), "")
        else:
            found[name] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found


def _timed(name: str) -> bool:
    return name.startswith("evidence/draft-")


def _has_speed(stage: Path) -> bool:
    return any(stage.glob("evidence/draft-*"))


def _record(folder: Path) -> dict[str, Any]:
    """The last run folder, whatever its name."""
    last = max((folder / "runs").glob("*/[!.]*"))
    found: dict[str, Any] = {
        path.relative_to(last).as_posix(): path.read_bytes() for path in last.rglob("*") if path.is_file()
    }
    for name, kept in (("plan.json", "cached"), ("stages.json", "reused")):
        value = json.loads(found[name])
        found[name] = value | {"stages": [row | {kept: None} for row in value["stages"]]}
    return found
