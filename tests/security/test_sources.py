"""What the package's own code never does: unpickle, evaluate text, start a shell, trust code of a checkpoint."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FLOORS = ("registry", "evals", "core", "plugins", "testing")
MODULES = sorted([ROOT / "__init__.py", *(path for floor in FLOORS for path in (ROOT / floor).rglob("*.py"))])

UNPICKLING = {"_pickle", "cloudpickle", "dill", "joblib", "jsonpickle", "marshal", "pickle", "shelve"}
EVALUATING = {
    "builtins.compile",
    "builtins.eval",
    "builtins.exec",
    "code.interact",
    "runpy.run_module",
    "runpy.run_path",
}
SHELLS = {"os.popen", "os.system", "pty.spawn", "subprocess.getoutput", "subprocess.getstatusoutput"}
YAML = {"yaml.full_load", "yaml.full_load_all", "yaml.unsafe_load", "yaml.unsafe_load_all"}
SAFE_LOADERS = {"yaml.CSafeLoader", "yaml.SafeLoader"}
IMPORTING = {"builtins.__import__", "importlib.import_module", "importlib.util.spec_from_file_location"}
COLLECTIVES = {"all_gather_object", "broadcast_object_list", "gather_object", "recv_object_list", "scatter_object_list"}

ALLOWED = {
    ("core/cli/app.py", "imports by a name"): "a module of its own table of subcommands, in this package",
    ("core/model/companions.py", "imports by a name"): "one of four modules of its own table, relative to the package",
    ("core/run/objectives.py", "imports by a name"): "a module of its own table of objectives, relative to the package",
    ("core/run/preflight.py", "imports by a name"): "a module of its own table of checks, relative to the package",
    ("core/run/processes.py", "unpickles from processes"): "the processes of one run, which one user started",
    ("core/training/checkpoint.py", "imports pickle"): "the error alone, which torch raises for what it refuses",
    ("evals/quiet.py", "imports by a name"): "two modules of lm-eval and datasets, from its own tuple",
    ("evals/stock.py", "adds to a YAML loader"): "a tag that becomes a name and imports nothing",
    ("registry/entries.py", "imports by a name"): "the target of a component, which installed code names",
    ("testing/checks.py", "imports by a name"): "a module of its own table of kinds, relative to the package",
}


class Names(ast.NodeVisitor):
    """What names stand for in a module: imported modules and attributes, and builtins."""

    def __init__(self, tree: ast.AST) -> None:
        self.known: dict[str, str] = {}
        self.safe: set[str] = set()
        self.visit(tree)

    def visit_Import(self, node: ast.Import) -> None:
        for alias in node.names:
            self.known[alias.asname or alias.name.split(".")[0]] = (
                alias.name if alias.asname else alias.name.split(".")[0]
            )

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        for alias in node.names:
            self.known[alias.asname or alias.name] = f"{node.module or ''}.{alias.name}"

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        if any(self.of(base) in SAFE_LOADERS for base in node.bases):
            self.safe.add(node.name)
        self.generic_visit(node)

    def of(self, node: ast.AST) -> str:
        """The dotted name of an expression, or nothing."""
        if isinstance(node, ast.Name):
            return self.known.get(node.id, f"builtins.{node.id}")
        if isinstance(node, ast.Attribute):
            return f"{self.of(node.value)}.{node.attr}"
        return ""


def findings(source: str) -> Iterator[tuple[int, str]]:
    """Line and kind of everything in a module's source that the platform does not do."""
    tree = ast.parse(source)
    names = Names(tree)
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module or ""]
            absolute = isinstance(node, ast.Import) or not node.level
            for module in modules:
                if absolute and module.split(".")[0] in UNPICKLING:
                    yield node.lineno, f"imports {module.split('.')[0]}"
        elif isinstance(node, ast.Call):
            yield from ((node.lineno, what) for what in _of_call(node, names))
        elif isinstance(node, ast.Dict):
            for key, value in zip(node.keys, node.values, strict=True):
                if isinstance(key, ast.Constant) and key.value == "trust_remote_code" and not _is(value, False):
                    yield node.lineno, "trusts remote code"


def _of_call(node: ast.Call, names: Names) -> Iterator[str]:
    name = names.of(node.func)
    last = node.func.attr if isinstance(node.func, ast.Attribute) else name.rpartition(".")[2]
    given = {keyword.arg: keyword.value for keyword in node.keywords}
    spread = None in given
    if name == "torch.load" and not _is(given.get("weights_only"), True):
        yield "loads a pickle of torch"
    if last in {"from_pickle", "read_pickle"}:
        yield "reads a pickle"
    if "allow_pickle" in given and not _is(given["allow_pickle"], False):
        yield "allows pickles in arrays"
    if "trust_remote_code" in given and not _is(given["trust_remote_code"], False):
        yield "trusts remote code"
    if last == "from_pretrained" and "Auto" in name:
        if "trust_remote_code" not in given:
            yield "may ask to trust remote code"
        if "AutoModel" in name and not _is(given.get("use_safetensors"), True):
            yield "reads other weights than safetensors"
    if name in YAML or (name in {"yaml.load", "yaml.load_all", "yaml.parse"} and not _safe(node, given, names)):
        yield "loads YAML that may build anything"
    if last in {"add_constructor", "add_multi_constructor"}:
        yield "adds to a YAML loader"
    if name in EVALUATING:
        yield f"calls {name.rpartition('.')[2]}"
    if name in SHELLS or name.startswith(("os.exec", "os.spawn", "os.posix_spawn")):
        yield "starts a shell or a program"
    if name.startswith("subprocess.") and "shell" in given and not _is(given["shell"], False):
        yield "starts a shell or a program"
    if name.startswith("subprocess.") and spread:
        yield "starts a program with options that are not seen here"
    if name in IMPORTING and not _own(node.args[:1]):
        yield "imports by a name"
    if last in COLLECTIVES:
        yield "unpickles from processes"


def _is(node: ast.AST | None, value: object) -> bool:
    return isinstance(node, ast.Constant) and node.value is value


def _safe(node: ast.Call, given: dict[str | None, ast.expr], names: Names) -> bool:
    loader = given.get("Loader", node.args[1] if len(node.args) > 1 else None)
    if loader is None:
        return False
    return names.of(loader) in SAFE_LOADERS or (isinstance(loader, ast.Name) and loader.id in names.safe)


def _own(arguments: list[ast.expr]) -> bool:
    """Whether what is imported is written here, or lies below the module's own package."""
    if not arguments:
        return False
    first = arguments[0]
    if isinstance(first, ast.JoinedStr):
        start = first.values[0]
        return (
            isinstance(start, ast.FormattedValue)
            and isinstance(start.value, ast.Name)
            and start.value.id == "__package__"
        )
    return isinstance(first, ast.Constant)


@cache
def everywhere() -> set[tuple[str, str]]:
    return {
        (path.relative_to(ROOT).as_posix(), what)
        for path in MODULES
        for _, what in findings(path.read_text(encoding="utf-8"))
    }


def test_no_module_does_what_could_run_data() -> None:
    assert len(MODULES) > 200
    assert sorted(everywhere() - set(ALLOWED)) == []


def test_every_exception_is_still_needed() -> None:
    assert sorted(set(ALLOWED) - everywhere()) == []


PLANTED = {
    "import pickle": "imports pickle",
    "import marshal as m": "imports marshal",
    "from dill import loads": "imports dill",
    "def late():\n    from joblib import load": "imports joblib",
    "import torch\ntorch.load('x')": "loads a pickle of torch",
    "import torch as t\nt.load('x', weights_only=False)": "loads a pickle of torch",
    "from torch import load\nload('x')": "loads a pickle of torch",
    "import pandas\npandas.read_pickle('x')": "reads a pickle",
    "import numpy as np\nnp.load('x', allow_pickle=True)": "allows pickles in arrays",
    "import numpy as np\nnp.load('x', allow_pickle=flag)": "allows pickles in arrays",
    "AutoModel.from_pretrained('x', trust_remote_code=True, use_safetensors=True)": "trusts remote code",
    "options = {'trust_remote_code': True}": "trusts remote code",
    "from transformers import AutoTokenizer\nAutoTokenizer.from_pretrained('x')": "may ask to trust remote code",
    "from transformers import AutoModelForCausalLM as A\nA.from_pretrained('x', trust_remote_code=False)": (
        "reads other weights than safetensors"
    ),
    "import yaml\nyaml.load('x')": "loads YAML that may build anything",
    "import yaml\nyaml.load('x', Loader=yaml.Loader)": "loads YAML that may build anything",
    "import yaml\nyaml.load('x', yaml.UnsafeLoader)": "loads YAML that may build anything",
    "from yaml import unsafe_load\nunsafe_load('x')": "loads YAML that may build anything",
    "import yaml\nclass L(yaml.FullLoader): ...\nyaml.load('x', Loader=L)": "loads YAML that may build anything",
    "L.add_constructor('!x', f)": "adds to a YAML loader",
    "eval('1')": "calls eval",
    "exec(text)": "calls exec",
    "compile(text, 'x', 'exec')": "calls compile",
    "import runpy\nrunpy.run_path('x')": "calls run_path",
    "import os\nos.system('x')": "starts a shell or a program",
    "from os import system as run\nrun('x')": "starts a shell or a program",
    "import os\nos.execv('x', [])": "starts a shell or a program",
    "import subprocess\nsubprocess.run('x', shell=True)": "starts a shell or a program",
    "import subprocess\nsubprocess.run(['x'], **options)": "starts a program with options that are not seen here",
    "import importlib\nimportlib.import_module(section.use)": "imports by a name",
    "from importlib import import_module\nimport_module(f'{name}.x')": "imports by a name",
    "__import__(name)": "imports by a name",
    "import torch\ntorch.distributed.all_gather_object(a, b)": "unpickles from processes",
}
HARMLESS = (
    "import re\nre.compile('x')",
    "model.eval()",
    "import torch\ntorch.load('x', weights_only=True)",
    "import json\njson.load(file)",
    "import yaml\nyaml.load('x', Loader=yaml.SafeLoader)",
    "import yaml\nclass L(yaml.SafeLoader): ...\nyaml.load('x', Loader=L)",
    "import subprocess\nsubprocess.run(['x'], check=True)",
    "import importlib\nimportlib.import_module(f'{__package__}.{name}')",
    "import importlib\nimportlib.import_module('json')",
    "from .pickle import jar",
    "from transformers import AutoModelForCausalLM\n"
    "AutoModelForCausalLM.from_pretrained('x', trust_remote_code=False, use_safetensors=True)",
)


@pytest.mark.parametrize("source", PLANTED)
def test_the_check_finds_what_is_planted(source: str) -> None:
    assert PLANTED[source] in {what for _, what in findings(source)}


@pytest.mark.parametrize("source", HARMLESS)
def test_the_check_lets_pass_what_is_harmless(source: str) -> None:
    assert list(findings(source)) == []
