"""A run of two phases in a store, written by hand with every kind of evidence; and a Chromium to look at pages."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from phasegate.core.run.fingerprint import recipe_of
from phasegate.core.run.records import create_run
from phasegate.core.run.store import Stage, Store
from phasegate.evals.criteria import judge
from phasegate.evals.measurement import Measurement
from phasegate.evals.records import write_judgements, write_measurements

HERE = Path(__file__).parent


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """Where the run and its store are."""

    run: Path
    store: Path
    stages: tuple[Stage, ...]


def gate(use: str, metric: str, **bounds: Any) -> dict[str, Any]:
    """A criterion as a stage's recipe has it."""
    keys = ("skip", "at_least", "at_most", "against", "documents", "paper")
    return {"use": use, "metric": metric, "statistic": "value", "confidence": 0.95, "options": {}} | {
        key: bounds.get(key, [] if key == "skip" else None) for key in keys
    }


def shares(metric: str, right: int, of: int, **more: Any) -> Measurement:
    """A proportion over documents of which the first ``right`` are right."""
    documents = {f"{place:04d}": float(place < right) for place in range(of)}
    return Measurement(metric=metric, value=right / of, n=of, kind="proportion", per_document=documents, **more)


def routing(entropies: tuple[float, float], table: list[list[list[float]]]) -> dict[str, Measurement]:
    """Routing of two domains over two experts in one layer."""
    load = [[sum(domain[e] for domain in layer) / 2 for e in range(2)] for layer in table]
    notes = {"domains": ["code", "prose"], "shares": table, "load": load, "tokens": [900, 1100]}
    return {
        "entropy_mean": Measurement(metric="entropy_mean", value=sum(entropies) / 2, n=64, evidence=notes),
        **{
            f"entropy/{name}": Measurement(
                metric=f"entropy/{name}", value=value, n=32, interval=(value - 0.02, value + 0.02)
            )
            for name, value in zip(("code", "prose"), entropies, strict=True)
        },
    }


def calibration() -> dict[str, Measurement]:
    """Calibration of four answers."""
    curve = {"curve": {"coverage": [0.25, 0.5, 1.0], "risk": [0.0, 0.0, 0.5]}, "stale": False}
    return {
        name: Measurement(metric=name, value=value, n=4, interval=(value - 0.05, value + 0.05), evidence=notes)
        for name, value, notes in (("ece", 0.1, {}), ("aurc", 0.2, curve), ("aurc_softmax", 0.3, curve))
    }


ANSWERS = [
    {"hash": "a", "right": True, "confidence": 0.95, "softmax": 0.99},
    {"hash": "b", "right": True, "confidence": 0.9, "softmax": 0.98},
    {"hash": "c", "right": False, "confidence": 0.1, "softmax": 0.97},
    {"hash": "d", "right": False, "confidence": 0.2, "softmax": 0.96},
]


def ablation() -> dict[str, Any]:
    """Two experts, of which the first hurts its owner most."""
    rows = [
        {
            "expert": expert,
            "mode": "mask",
            "owner": owner,
            "most": "code",
            "clear": not expert,
            "drop": drop,
            "mean": {"value": drop / 2, "low": drop / 2 - 0.01, "high": drop / 2 + 0.01},
            "domains": {name: {"value": drop, "low": None, "high": None} for name in ("code", "prose")},
        }
        for expert, owner, drop in ((0, "code", -0.4), (1, "prose", -0.2))
    ]
    counts = {"hits": 1, "n": 2, "clear_hits": 1, "clear": 1}
    return {
        "unit": "nats per token",
        "domains": ["code", "prose"],
        "documents": {"code": 32, "prose": 32},
        "tokens": 2000,
        "agreement": {"mask": {"experts": counts, "single": counts}},
        "experts": rows,
    }


def changes(relative: float) -> dict[str, Any]:
    """How far a phase moved two roles."""
    roles = [{"role": "attention", "relative": relative}, {"role": "experts", "relative": 2 * relative}]
    return {"relative": relative, "changed": 9, "tensors": 10, "roles": roles}


def commit(
    store: Store,
    phase: str,
    parent: str | None,
    gates: dict[str, Any],
    measured: dict[str, dict[str, Measurement]],
    steps: dict[str, int],
    bump: dict[str, Any] | None = None,
    memory: dict[str, Any] | None = None,
) -> Stage:
    """Put a stage into the store with its evidence, judged as the platform judges."""
    from phasegate.core.config.schema import CriterionSection
    from phasegate.core.run.gates import criterion_of, gate_key

    section = {"use": phase, "steps": {name: {"objective": "causal"} for name in steps}, "gates": gates, "entry": {}}
    recipe = recipe_of(
        {"phase": phase, "parent": parent, "seed": 7, "data": "d" * 24, "section": section}
        | {"components": {f"phase/phasegate:{phase}": 1}, "libraries": {"torch": "2.13.0"}}
    )
    with store.single_flight(recipe), store.draft(store.begin(recipe)) as draft:
        judgements = []
        for name, one in gates.items():
            criterion = CriterionSection(**one)
            key = gate_key(criterion)
            write_measurements(draft.evidence / f"{key}.json", measured[one["use"]])
            judgements += judge(criterion_of(name, criterion), measured[one["use"]])
            folder = draft.evidence / key
            folder.mkdir(exist_ok=True)
            if one["use"] == "calibration":
                lines = "".join(json.dumps(answer) + "\n" for answer in ANSWERS)
                (folder / "answers.jsonl").write_text(lines, encoding="utf-8")
            if one["use"] == "ablation":
                (folder / "ablation.json").write_text(json.dumps(ablation()), encoding="utf-8")
        write_judgements(draft.evidence / "verdicts.json", judgements)
        (draft.evidence / "changes.json").write_text(
            json.dumps(changes(0.5 if parent is None else 0.1)), encoding="utf-8"
        )
        (draft.checkpoint / "config.json").write_text(json.dumps({"of": phase}), encoding="utf-8")
        rows = [
            {"phase": phase, "attempt": 0, "at": name, "step": step, "loss": 4.0 / step}
            for name, many in steps.items()
            for step in range(10, many + 1, 10)
        ]
        draft.metrics.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        outcome = "pass" if all(one.verdict == "pass" for one in judgements) else "fail"
        facts: dict[str, Any] = {
            "outcome": outcome,
            "decision": {"action": "advance", "reason": "every criterion passed"},
            "tokens": 64_000,
            "seconds": 32.0,
            "attempts": [{"kind": "train", "steps": steps, "bump": bump or {}, "notes": {}}],
            "last_step": list(steps)[-1],
        } | ({"memory": memory} if memory else {})
        return store.commit(draft, {"facts": facts, "provenance": {}})


@pytest.fixture
def make(tmp_path: Path) -> Callable[..., Made]:
    """Make a run of foundation and safety: accuracy falls from 900 to 850 of 1,000, refusals are learnt."""

    def built(*, name: str = "tiny", criterion: str = "knowledge", phases: int = 2, text: str | None = None) -> Made:
        store = Store(tmp_path / "store")
        knowledge, who = gate("choice", "acc", at_least=0.8, paper=">= 0.70"), gate("routing", "entropy/*", at_most=0.6)
        first = commit(
            store,
            "foundation",
            None,
            {criterion: knowledge, "narrow": who},
            {
                "choice": {"acc": shares("acc", 900, 1000, chance=0.25)},
                "routing": routing((0.69, 0.5), [[[0.55, 0.45], [0.2, 0.8]]]),
            },
            {"pretrain": 100},
            memory={"resident": 512 * 1024**2, "since": "phase", "device": None},
        )
        bump = {"before": 1.25, "height": 0.5, "recovery": 0.75}
        second = commit(
            store,
            "safety",
            first.digest,
            {
                criterion: knowledge,
                "narrow": who,
                "refused": gate("refusal", "over_refused", at_most=0.05),
                "calibrated": gate("calibration", "ece", at_most=0.2),
                "needed": gate("ablation", "match", at_least=0.7),
            },
            {
                "choice": {"acc": shares("acc", 850, 1000, chance=0.25)},
                "routing": routing((0.33, 0.5), [[[0.9, 0.1], [0.2, 0.8]]]),
                "refusal": {
                    "over_refused": shares("over_refused", 2, 200),
                    "complied/harmful": shares("complied/harmful", 4, 100),
                },
                "calibration": calibration(),
                "ablation": {"match": shares("match", 1, 2)},
            },
            {"refuse": 40},
            bump={"refuse": {**bump, "series": [[0, 1.25], [10, 1.75], [20, 1.5], [30, 1.25], [40, 1.25]]}},
        )
        run = create_run(
            tmp_path / "runs",
            name,
            text=text or f"name: {name}\nphases: [foundation, safety]\n",
            plan={
                "parameters": {"total": 481_504, "active": 186_592},
                "stages": [{"phase": "foundation"}, {"phase": "safety"}],
            },
            manifest={"plugins": {"dists": {"phasegate": {"version": "0.1.0", "code": "sha256:ab"}}}, "gates": "warn"},
        )
        rows = [
            {"phase": stage.name.rpartition("-")[0], "stage": stage.name, "digest": stage.digest}
            | {"reused": False, "action": "advance", "reason": "every criterion passed"}
            for stage in (first, second)[:phases]
        ]
        run.stages_file.write_text(json.dumps({"stages": rows}), encoding="utf-8")
        return Made(run=run.path, store=store.root, stages=(first, second))

    return built


@pytest.fixture
def study(tmp_path: Path) -> Callable[..., Path]:
    """Write the results of the study of ``orders`` or ``parameters``, with what is changed in them, into a folder."""

    def write(kind: str, **changed: Any) -> Path:
        results = json.loads((HERE / f"{kind}.json").read_text(encoding="utf-8")) | changed
        folder = tmp_path / "studies" / kind
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "results.json").write_text(json.dumps(results), encoding="utf-8")
        return folder

    return write


@pytest.fixture(scope="session")
def chromium() -> Iterator[Any]:
    """A headless Chromium without a network; tests that need one are skipped where there is none."""
    found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if found is None:
        pytest.skip("no Chromium is installed")
    playwright = pytest.importorskip(
        "playwright.sync_api", reason="playwright, which drives Chromium, is not installed"
    )
    with playwright.sync_playwright() as driver:
        arguments = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]
        browser = driver.chromium.launch(executable_path=found, args=[*arguments, "--disable-sync", "--no-first-run"])
        yield browser
        browser.close()
