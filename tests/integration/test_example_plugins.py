"""The two plugin packages under examples/plugins, as a user has them: installed with pip, named, trained, measured."""

from __future__ import annotations

import importlib
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from phasegate.core.config.complete import complete
from phasegate.core.config.components import references
from phasegate.core.config.loading import load_experiment
from phasegate.registry.plugins import Plugins

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples" / "plugins"
DISTS = ("phasegate-hash-router", "phasegate-nbit")
BOTH = ",".join(DISTS)

#: The preset at a size that trains in seconds; bounds that any model meets are no part of what is shown here.
TINY = (
    "model={hidden_size: 32, num_hidden_layers: 2, num_attention_heads: 2, head_dim: 16, moe_intermediate_size: 16,"
    " num_experts: 6}",
    "tokenizer={vocab_size: 600, documents: 400}",
    "data.sequence_length=48",
    "data.sources.world={use: microworld, head: 4, rare: 1, contested: 1, unknown: 2, hard: 1, training_documents: 900,"
    " chats: 240, pairs: 120, heldout_chats: 24, heldout_pairs: 16, needles: 20}",
    "run={logging_steps: 2, threads: 1}",
    "order=foundation>consolidation",
    "phases.foundation.steps.pretrain={steps: 9, rows: 4}",
    "phases.foundation.gates={knowledge: null, load-low: null, load-high: null, plateau: null,"
    " stable: {use: stability, metric: same_token, at_least: 0.0, documents: 56}}",
)


def consolidating(**options: float) -> str:
    """The override that adds the phase of the second package."""
    gates = {"cost": {"documents": 28, "at_most": 9.0}, "knowledge-kept": None}
    phase = {"use": "consolidation", "options": {"steps": 6, **options}, "steps": {"consolidate": {"rows": 4}}}
    return f"phases.consolidation={json.dumps({**phase, 'gates': gates, 'policy': {'extensions': 0}})}"


LINEAR = (*TINY, consolidating())
#: Losses on the router have nothing to act on where a hash decides.
HASHED = (
    *TINY,
    "model.router={use: hash, bits: 6}",
    "phases.foundation.steps.pretrain.losses={balance: null, z: null}",
    consolidating(consistency=0),
)


@pytest.fixture
def discovered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Both packages on the path with the metadata that an installer would write from their pyproject.toml."""
    packages = [name.replace("-", "_") for name in DISTS]
    for dist, package in zip(DISTS, packages, strict=True):
        project = tomllib.loads((EXAMPLES / dist / "pyproject.toml").read_text(encoding="utf-8"))["project"]
        info = tmp_path / f"{package}-{project['version']}.dist-info"
        info.mkdir()
        needs = "".join(f"Requires-Dist: {text}\n" for text in project["dependencies"])
        told = f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n{needs}"
        (info / "METADATA").write_text(told, encoding="utf-8")
        ((group, points),) = project["entry-points"].items()
        lines = "".join(f"{name} = {value}\n" for name, value in points.items())
        (info / "entry_points.txt").write_text(f"[{group}]\n{lines}", encoding="utf-8")
        monkeypatch.syspath_prepend(str(EXAMPLES / dist / "src"))
    monkeypatch.syspath_prepend(str(tmp_path))
    importlib.invalidate_caches()
    yield
    for name in [name for name in sys.modules if name.partition(".")[0] in packages]:
        del sys.modules[name]


def test_both_packages_are_discovered_and_all_that_they_name_can_be_imported(discovered: None) -> None:
    plugins = Plugins.load([BOTH])
    own = [entry for entry in plugins.components() if entry.dist in DISTS]
    assert [entry.key for entry in own] == [
        "gate/phasegate-hash-router:stability",
        "loss/phasegate-nbit:routing-consistency",
        "phase/phasegate-nbit:consolidation",
        "quantizer/phasegate-nbit:nbit",
        "router/phasegate-hash-router:hash",
    ]
    for entry in own:
        target, config = entry.load(), entry.config_class()
        assert callable(target) and config is not None
        assert target.__module__.partition(".")[0] == config.__module__.partition(".")[0]
        assert plugins.components().config(entry.kind, entry.name, {}) == config()
    assert [call.owner for call in plugins.calls("phasegate_on_save")] == ["phasegate-nbit:nbit"]


@pytest.mark.parametrize("dist", DISTS)
def test_the_experiment_of_each_readme_is_complete_with_the_package_that_it_names(
    discovered: None, dist: str, tmp_path: Path
) -> None:
    (text,) = re.findall(r"```yaml\n(.*?)```", (EXAMPLES / dist / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    path = tmp_path / "experiment.yaml"
    path.write_text(text, encoding="utf-8")
    loaded = load_experiment(str(path))
    plugins = Plugins.load(loaded.experiment.plugins, loaded.experiment.require)
    assert dist in {plugin.found.dist for plugin in plugins.loaded}
    components = plugins.components()
    completed = complete(loaded, components)
    named = {components.get(kind, section.use).key for kind, _, section in references(completed)}
    assert {entry.key for entry in components if entry.dist == dist} <= named


class Environment:
    """A fresh virtual environment, the folder that its commands run in, and what they leave."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.bin = folder / "venv" / ("Scripts" if os.name == "nt" else "bin")
        self.work = folder / "work"
        self.work.mkdir()

    def run(self, command: str, *arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
        """Run a program of the environment, with nothing of the caller's paths."""
        kept = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "PYTEST", "COV"))}
        return subprocess.run(
            [str(self.bin / command), *arguments],
            cwd=cwd or self.work,
            env={**kept, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "COLUMNS": "200"},
            capture_output=True,
            text=True,
            check=False,
        )

    def python(self, *arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
        return self.run("python", "-m", *arguments, cwd=cwd)

    def train(self, store: str, *sets: str, plugins: str | None = BOTH) -> subprocess.CompletedProcess[str]:
        """Train the shipped preset as a user does, with overrides."""
        named = () if plugins is None else ("--plugins", plugins)
        return self.run("platform", "train", "ncas-nano", *named, "--store", store, *(f"--set={text}" for text in sets))

    def stages(self, store: str) -> dict[str, Path]:
        """The stages of a store by phase."""
        return {path.parent.name.rsplit("-", 1)[0]: path.parent for path in (self.work / store).glob("*/COMPLETE")}


def succeed(done: subprocess.CompletedProcess[str]) -> str:
    assert done.returncode == 0, f"{' '.join(done.args)}\n{done.stdout[-4000:]}\n{done.stderr[-4000:]}"
    return done.stdout


def read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def rows(stage: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (stage / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """phasegate and both packages, built and installed by pip; everything else is that of the environment around."""
    folder = tmp_path_factory.mktemp("fresh")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder / "venv")], check=True)
    made = Environment(folder)
    around = [path for path in sys.path if Path(path).name in ("site-packages", "dist-packages")]
    (site,) = (folder / "venv").rglob("site-packages")
    (site / "around.pth").write_text("".join(f"{path}\n" for path in around), encoding="utf-8")
    # From copies, since building leaves files in the sources.
    skipped = shutil.ignore_patterns(".*", "*.egg-info", "__pycache__", "build", "runs", "store", "tests", "examples")
    shutil.copytree(ROOT, folder / "phasegate", ignore=skipped)
    for dist in DISTS:
        shutil.copytree(
            EXAMPLES / dist, folder / dist, ignore=shutil.ignore_patterns(".*", "*.egg-info", "__pycache__")
        )
    sources = [str(folder / name) for name in ("phasegate", *DISTS)]
    # What is installed around it is not this environment's to remove.
    offline = ("--no-build-isolation", "--no-deps", "--no-index", "--ignore-installed", "--quiet")
    succeed(made.python("pip", "install", *offline, *sources))
    return made


@pytest.fixture(scope="module")
def hashed(environment: Environment) -> dict[str, Path]:
    """The stages of a model with a hash router, consolidated to 8 bits."""
    succeed(environment.train("hashed", *HASHED))
    return environment.stages("hashed")


@pytest.mark.slow
def test_installed_packages_are_listed_and_shown_before_anybody_uses_them(environment: Environment) -> None:
    listed = json.loads(succeed(environment.run("platform", "plugins", "--json")))
    found = {row["name"]: row for row in listed}
    for name in ("phasegate-hash-router:hash-router", "phasegate-nbit:nbit"):
        assert (found[name]["version"], found[name]["status"]) == ("1.0.0", "available")
    shown = succeed(environment.run("platform", "components", "show", "router/hash", "-p", "phasegate-hash-router"))
    assert "router/phasegate-hash-router:hash 1.0.0, revision 1" in shown and "bits" in shown


@pytest.mark.slow
def test_a_run_with_both_packages_records_their_code_and_revisions(hashed: dict[str, Path]) -> None:
    assert set(hashed) == {"foundation", "consolidation"}
    told = read(hashed["consolidation"] / "manifest.json")["provenance"]
    assert told["order"] == ["phasegate:builtin", "phasegate-hash-router:hash-router", "phasegate-nbit:nbit"]
    for dist in DISTS:
        assert (told["dists"][dist]["version"], told["dists"][dist]["editable"]) == ("1.0.0", False)
        assert told["dists"][dist]["code"].startswith("sha256:")
    own = {key: revision for key, revision in told["components"].items() if "/phasegate:" not in key}
    assert own == {
        "gate/phasegate-hash-router:stability": 1,
        "phase/phasegate-nbit:consolidation": 1,
        "quantizer/phasegate-nbit:nbit": 1,
        "router/phasegate-hash-router:hash": 1,
    }


@pytest.mark.slow
def test_the_model_learns_behind_the_hash_and_the_gate_says_how_stable_it_is(hashed: dict[str, Path]) -> None:
    logged = [row for row in rows(hashed["foundation"]) if "loss/task" in row]
    assert logged[-1]["loss/task"] < logged[0]["loss/task"] - 0.1
    assert logged[-1]["router/load_max"] < 1.0  # several experts get tokens
    (verdict,) = read(hashed["foundation"] / "evidence" / "verdicts.json")
    assert (verdict["criterion"], verdict["metric"], verdict["verdict"]) == ("stable", "same_token", "pass")
    assert verdict["low"] < verdict["value"] < verdict["high"]
    assert verdict["value"] > verdict["chance"]


@pytest.mark.slow
def test_the_phase_quantizes_all_experts_and_the_hook_says_what_it_cost(hashed: dict[str, Path]) -> None:
    events = [row for row in rows(hashed["consolidation"]) if "share" in row]
    assert [row["share"] for row in events] == [0.5, 0.75, 1.0]
    assert 0.0 < events[-1]["error"] < 1e-3
    assert all(row["perplexity_before"] != row["perplexity_after"] for row in events)  # other values are computed with
    told = read(hashed["consolidation"] / "quantization-error.json")
    assert set(told["layers"]) == {"0", "1"} and 0.0 < told["error"] < 1e-3
    assert told["quantizer"] == {"use": "phasegate-nbit:nbit", "options": {"bits": 8}}
    assert not (hashed["foundation"] / "quantization-error.json").exists()


@pytest.mark.slow
def test_the_loss_of_the_package_acts_where_a_router_learns(environment: Environment) -> None:
    succeed(environment.train("linear", *LINEAR))
    stage = environment.stages("linear")["consolidation"]
    logged = [row for row in rows(stage) if "loss/routing-consistency" in row]
    assert logged[-1]["loss/routing-consistency"] > 0.0
    assert logged[-1]["loss/routing-consistency/weighted"] == pytest.approx(
        0.1 * logged[-1]["loss/routing-consistency"], rel=1e-4
    )
    assert 0.5 < logged[-1]["loss/routing-consistency/agreement"] <= 1.0
    assert read(stage / "manifest.json")["provenance"]["components"]["loss/phasegate-nbit:routing-consistency"] == 1


@pytest.mark.slow
@pytest.mark.parametrize(("named", "unknown"), [("model.router=hash", "hash"), (consolidating(), "consolidation")])
def test_an_experiment_that_names_them_is_refused_where_they_are_only_installed(
    environment: Environment, named: str, unknown: str
) -> None:
    done = environment.train("refused", named, plugins=None)
    assert done.returncode == 2
    assert f"'{unknown}'" in done.stderr and "--plugins" in done.stderr and "Traceback" not in done.stderr
    assert environment.stages("refused") == {}


@pytest.mark.slow
@pytest.mark.parametrize("dist", DISTS)
def test_the_tests_of_each_package_pass_where_it_is_installed(environment: Environment, dist: str) -> None:
    told = succeed(environment.python("pytest", "-q", "-p", "no:cacheprovider", cwd=environment.folder / dist))
    assert " passed" in told and " failed" not in told


@pytest.mark.slow
def test_the_packages_are_clean_and_typed_as_strictly_as_they_say(environment: Environment) -> None:
    for dist in DISTS:
        succeed(environment.python("ruff", "check", str(environment.folder / dist)))
        succeed(environment.python("ruff", "format", "--check", str(environment.folder / dist)))
    settings = environment.folder / DISTS[0] / "pyproject.toml"
    packages = [part for dist in DISTS for part in ("-p", dist.replace("-", "_"))]
    succeed(environment.python("mypy", "--strict", "--config-file", str(settings), *packages))
