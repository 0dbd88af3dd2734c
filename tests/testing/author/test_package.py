from __future__ import annotations

import ast
import errno
import itertools
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from phasegate import KINDS, PluginError, StoreError
from phasegate.registry.hookspecs import HOOKS
from phasegate.testing.author.names import LONGEST, names_of
from phasegate.testing.author.package import files_of, write_package
from phasegate.testing.author.parts import PARTS, USES, hooks_of, kinds_of

NAMES = names_of("phasegate-lego")
ROUTER = files_of(NAMES, ["router"], [])


def subsets(things: list[str]) -> Iterator[list[str]]:
    for size in range(1, len(things) + 1):
        yield from map(list, itertools.combinations(things, size))


def generated() -> Iterator[tuple[str, dict[str, str]]]:
    """Every set of kinds; every set of hooks, alone and beside all kinds; the longest name that there is."""
    kinds, hooks = list(PARTS), list(USES)
    for number, chosen in enumerate(subsets(kinds)):
        yield f"kinds-{number}", files_of(NAMES, chosen, [])
    for number, chosen in enumerate(subsets(hooks)):
        yield f"hooks-{number}", files_of(NAMES, [], chosen)
        yield f"both-{number}", files_of(NAMES, kinds, chosen)
    yield "everything", files_of(NAMES, kinds, hooks)
    yield "longest", files_of(names_of("x" * LONGEST), kinds, hooks)


@pytest.fixture(scope="module")
def packages() -> dict[str, dict[str, str]]:
    return dict(generated())


def test_there_is_a_component_of_every_kind_and_a_use_of_every_hook() -> None:
    assert set(PARTS) == set(KINDS)
    assert set(USES) == set(HOOKS) - {"phasegate_components"}


def test_every_set_of_kinds_is_a_package_without_a_placeholder_left(packages: dict[str, dict[str, str]]) -> None:
    assert sum(name.startswith("kinds-") for name in packages) == 2**10 - 1
    seen: set[str] = set()
    for texts in packages.values():
        for path, text in texts.items():
            if text in seen:
                continue
            seen.add(text)
            # What GitHub fills in itself begins with ${{.
            assert re.findall(r"\$(?!\{\{)", text) == [], path
            if path.endswith(".py"):
                compile(text, path, "exec")


def test_every_component_and_every_test_has_a_name_of_its_own() -> None:
    texts = files_of(NAMES, list(PARTS), list(USES))
    offered = re.findall(r'^        name="(.+)",$', texts["src/phasegate_lego/plugin.py"], re.MULTILINE)
    assert len(offered) == len(set(offered)) == len(PARTS)
    for path, text in texts.items():
        if path.startswith("tests/"):
            tests = [node.name for node in ast.parse(text).body if isinstance(node, ast.FunctionDef)]
            assert len(tests) == len(set(tests)), path
            assert any(name.startswith("test_") for name in tests), path


def test_ruff_finds_nothing(packages: dict[str, dict[str, str]], tmp_path: Path) -> None:
    """Modules are the same whatever else a package has; what is put together for each set is looked at where sets are
    small or nearly whole, which is where lines fold in other ways."""
    for name in ("everything", "longest"):
        for path, text in packages[name].items():
            (tmp_path / name / path).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name / path).write_text(text, encoding="utf-8")
    for name, texts in packages.items():
        parts = sum(path.startswith("tests/") for path in texts)
        if parts <= 4 or parts >= len(PARTS):
            for path in ("src/phasegate_lego/plugin.py", "tests/test_plugin.py"):
                if path in texts:
                    (tmp_path / f"{name}_{Path(path).name}").write_text(texts[path], encoding="utf-8")
    rules = tomllib.loads(packages["longest"]["pyproject.toml"])["tool"]["ruff"]
    (tmp_path / "ruff.toml").write_text(
        f'line-length = {rules["line-length"]}\ntarget-version = "{rules["target-version"]}"\n'
        f"[lint]\nselect = {rules['lint']['select']!r}\n",
        encoding="utf-8",
    )
    for command in (["check", "--no-cache"], ["format", "--check", "--no-cache"]):
        done = subprocess.run(
            [sys.executable, "-m", "ruff", *command, "."], cwd=tmp_path, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]


def test_the_metadata_say_what_the_platform_looks_for() -> None:
    project = tomllib.loads(ROUTER["pyproject.toml"])["project"]
    assert project["name"] == "phasegate-lego"
    assert project["dependencies"] == ["phasegate>=0.1,<2"]
    assert project["entry-points"] == {"phasegate.plugins.v1": {"lego": "phasegate_lego.plugin"}}
    assert project["description"] in ROUTER["README.md"]


def test_a_package_has_exactly_the_files_of_what_was_asked_for() -> None:
    assert sorted(files_of(NAMES, ["router", "gate"], ["phasegate_on_step"])) == [
        ".github/workflows/test.yml",
        ".gitignore",
        "LICENSE",
        "README.md",
        "pyproject.toml",
        "src/phasegate_lego/__init__.py",
        "src/phasegate_lego/gates.py",
        "src/phasegate_lego/plugin.py",
        "src/phasegate_lego/py.typed",
        "src/phasegate_lego/routers.py",
        "tests/test_conformance.py",
        "tests/test_gates.py",
        "tests/test_on_step.py",
        "tests/test_plugin.py",
        "tests/test_routers.py",
    ]


def test_the_workflow_runs_what_the_readme_says() -> None:
    steps = yaml.safe_load(ROUTER[".github/workflows/test.yml"])["jobs"]["test"]["steps"]
    commands = [part.strip() for step in steps for part in step.get("run", "").split("&&") if part]
    assert [command for command in commands if command not in ROUTER["README.md"]] == []
    assert "platform plugin check phasegate-lego" in commands


def test_a_plugin_of_nothing_is_refused() -> None:
    with pytest.raises(PluginError, match=r"A plugin offers components or implements hooks: add --kind \(anchor, gate"):
        files_of(NAMES, [], [])


def test_kinds_and_hooks_are_taken_once_and_hooks_in_the_order_of_a_run() -> None:
    assert kinds_of(["router", "gate", "router"]) == ("router", "gate")
    assert hooks_of(["on_end", "phasegate_on_start", "on_end"]) == ("phasegate_on_start", "phasegate_on_end")


def test_an_unknown_kind_or_hook_is_refused_with_the_nearest() -> None:
    with pytest.raises(PluginError, match=r"There is no kind 'ruter'\. Did you mean 'router'\? Kinds: anchor, gate"):
        kinds_of(["ruter"])
    with pytest.raises(PluginError, match=r"There is no hook 'on_stp' to begin with\. Did you mean 'on_step'\?"):
        hooks_of(["on_stp"])


def test_a_package_is_written_as_it_was_made(tmp_path: Path) -> None:
    write_package(tmp_path / "phasegate-lego", ROUTER)
    files = [path for path in (tmp_path / "phasegate-lego").rglob("*") if path.is_file()]
    found = {path.relative_to(tmp_path / "phasegate-lego").as_posix(): path.read_text("utf-8") for path in files}
    assert found == ROUTER
    assert [path.name for path in tmp_path.iterdir()] == ["phasegate-lego"]


@pytest.mark.parametrize("what", ["folder", "file", "link"])
def test_what_is_there_already_is_not_touched(what: str, tmp_path: Path) -> None:
    there = tmp_path / "phasegate-lego"
    if what == "folder":
        there.mkdir()
    elif what == "file":
        there.write_text("mine", encoding="utf-8")
    else:
        there.symlink_to(tmp_path / "nowhere")
    with pytest.raises(PluginError, match="exists already and is not touched: choose another folder with --output"):
        write_package(there, ROUTER)
    assert [path.name for path in tmp_path.iterdir()] == ["phasegate-lego"]
    assert not there.is_dir() or list(there.iterdir()) == []


def test_a_folder_is_not_made_inside_one_that_does_not_exist(tmp_path: Path) -> None:
    with pytest.raises(PluginError, match="does not exist; create it first"):
        write_package(tmp_path / "nowhere" / "phasegate-lego", ROUTER)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("written", range(0, len(ROUTER), 4))
def test_nothing_is_left_half_written(written: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write, count = Path.write_text, itertools.count()

    def full(path: Path, *arguments: object, **options: object) -> int:
        if next(count) == written:
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        return write(path, *arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(StoreError, match=r"cannot write the new plugin in .*: the disk is full"):
        write_package(tmp_path / "phasegate-lego", ROUTER)
    assert list(tmp_path.iterdir()) == []
