from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from phasegate import PluginError
from phasegate.core.cli.app import main
from phasegate.testing.author.checking import Finding, check_plugin

Install = Callable[..., Path]

NEEDS = ("phasegate>=0.1,<2",)
HOOK = "from phasegate import hookimpl\n@hookimpl\ndef phasegate_on_end(ctx): pass\n"
SPACE = """
from phasegate import SearchSpaceSpec, hookimpl

@hookimpl
def phasegate_components():
    yield SearchSpaceSpec(name="one", target="phasegate_lego.spaces:One", summary="The written order.")
"""
SPACES = '''
from phasegate.core.study.space import Row, SearchSpace

class One:
    """The written order and no other."""

    def space(self, curriculum):
        return SearchSpace(rows=(Row(name="one", order=">".join(curriculum.phases)),), listed=True)
'''


def found(name: str = "phasegate-lego") -> dict[tuple[str, str], Finding]:
    return {(finding.subject, finding.check): finding for finding in check_plugin(name)}


def failed(name: str = "phasegate-lego") -> dict[str, str]:
    return {finding.check: finding.reason for finding in check_plugin(name) if finding.outcome == "failed"}


def test_a_sound_plugin_passes_and_every_check_is_named(install_plugin: Install) -> None:
    install_plugin("phasegate-lego", SPACE, files={"spaces.py": SPACES}, requires=NEEDS)
    told = found()
    own = "phasegate-lego:lego"
    passed = [(own, "metadata"), (own, "requires"), ("phasegate-lego", "loads"), ("phasegate-lego", "hooks")]
    passed += [("phasegate-lego", "light"), ("search-space/one", "loads"), ("search-space/one", "summary")]
    assert {key: told[key].outcome for key in passed} == dict.fromkeys(passed, "passed")
    assert told["search-space/one", "options"] == Finding(
        subject="search-space/one", check="options", outcome="not applicable", reason="it takes no options"
    )


def test_only_the_plugin_that_is_named_is_checked(install_plugin: Install) -> None:
    install_plugin("phasegate-lego", HOOK, requires=NEEDS)
    install_plugin("phasegate-other", "raise RuntimeError('imported')", requires=NEEDS)
    assert {subject for subject, _ in found()} == {"phasegate-lego", "phasegate-lego:lego"}


@pytest.mark.parametrize(
    ("requires", "why"),
    [
        ((), "it does not say that it needs phasegate; add 'phasegate>=0.1,<2' to its dependencies."),
        (("phasegate",), "it takes any version of phasegate; say which, as in 'phasegate>=0.1,<2'."),
        ((*NEEDS, "no-such-thing>=3"), "it needs no-such-thing>=3, which is not installed here."),
        ((*NEEDS, "pluggy>=99"), "it needs pluggy>=99; pluggy "),
        ((*NEEDS, "not a requirement"), "its requirement 'not a requirement' cannot be read."),
    ],
)
def test_what_a_plugin_says_it_needs_must_be_sound(
    requires: tuple[str, ...], why: str, install_plugin: Install
) -> None:
    install_plugin("phasegate-lego", HOOK, requires=requires)
    assert failed()["requires"].startswith(why)


def test_needs_of_an_extra_are_not_looked_at(install_plugin: Install) -> None:
    install_plugin("phasegate-lego", HOOK, requires=(*NEEDS, 'no-such-thing; extra == "test"'))
    assert "requires" not in failed()


def test_another_version_of_the_platform_fails_the_metadata(install_plugin: Install) -> None:
    install_plugin("phasegate-lego", HOOK, requires=("phasegate>=99",))
    assert failed()["metadata"].startswith("phasegate-lego:lego 1.0 needs phasegate>=99; this is phasegate ")


@pytest.mark.parametrize(
    ("source", "check", "why"),
    [
        ("import no_such_module", "loads", "failed to import: ModuleNotFoundError: No module named 'no_such_module'"),
        (HOOK.replace("on_end", "on_ned"), "loads", "there is no hook 'phasegate_on_ned'. Did you mean"),
        (HOOK.replace("(ctx)", "(ctx=None)"), "loads", "a hook parameter has no default"),
        (SPACE.replace("yield", "raise OSError('no'); yield"), "loads", "OSError: no (raised by plugin phasegate-lego"),
        ("", "hooks", "it implements no hook, so it does nothing; decorate its functions with @hookimpl."),
        (f"import pandas\n{HOOK}", "light", "listing it imports pandas; name targets as 'module:attribute'"),
    ],
)
def test_what_is_wrong_with_a_plugin_is_said(source: str, check: str, why: str, install_plugin: Install) -> None:
    install_plugin("phasegate-lego", source, requires=NEEDS)
    assert why in failed()[check]


def test_what_takes_long_to_list_is_said(install_plugin: Install, monkeypatch: pytest.MonkeyPatch) -> None:
    install_plugin("phasegate-lego", f"sum(range(3_000_000))\n{HOOK}", requires=NEEDS)
    assert "light" not in failed()
    monkeypatch.setattr("phasegate.testing.author.checking.BUDGET", 0.01)
    assert re.fullmatch(r"listing it takes 0\.\d s of processor time, more than 0\.01 s; .*", failed()["light"])


@pytest.mark.parametrize(
    ("text", "check", "why"),
    [
        (SPACES.replace("class One", "class Two"), "loads", "'phasegate_lego.spaces:One', which does not exist"),
        (SPACES.replace('"""The written order and no other."""', ""), "documented", "has no docstring"),
    ],
)
def test_a_component_that_breaks_a_promise_fails_with_the_reason(
    text: str, check: str, why: str, install_plugin: Install
) -> None:
    install_plugin("phasegate-lego", SPACE, files={"spaces.py": text}, requires=NEEDS)
    assert why in failed()[check]


def test_a_component_that_raises_anything_is_a_finding_and_not_the_end(install_plugin: Install) -> None:
    raising = SPACES.replace("return SearchSpace", "raise ZeroDivisionError('by hand')\n        return SearchSpace")
    install_plugin("phasegate-lego", SPACE, files={"spaces.py": raising}, requires=NEEDS)
    told = found()
    assert "ZeroDivisionError: by hand" in told["search-space/one", "valid"].reason
    assert told["search-space/one", "summary"].outcome == "passed"


def test_an_unknown_plugin_is_a_mistake_of_the_caller() -> None:
    with pytest.raises(PluginError, match="No plugin 'phasegate-lego' is installed"):
        list(check_plugin("phasegate-lego"))


@pytest.mark.parametrize(("source", "code"), [(HOOK, 0), ("", 1)])
def test_the_command_prints_a_line_per_check_and_a_count(
    source: str, code: int, install_plugin: Install, capsys: pytest.CaptureFixture[str]
) -> None:
    install_plugin("phasegate-lego", source, requires=NEEDS)
    with pytest.raises(SystemExit) as end:
        main(["plugin", "check", "phasegate-lego"])
    assert int(end.value.code or 0) == code
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].split() == ["passed", "phasegate-lego:lego", "requires"]
    assert [line.split()[0] for line in lines[:-1]].count("failed") == code
    assert lines[-1].startswith(f"{5 - code} passed, {code} failed, 0 not applicable in ")


def test_a_plugin_can_be_checked_without_pytest(install_plugin: Install) -> None:
    package = install_plugin("phasegate-lego", SPACE, files={"spaces.py": SPACES}, requires=NEEDS)
    code = "import sys; sys.modules['pytest'] = None\nfrom phasegate.core.cli.app import main\nmain(sys.argv[1:])"
    environment: dict[str, Any] = {**os.environ, "PYTHONPATH": str(package.parent)}
    done = subprocess.run(
        [sys.executable, "-c", code, "plugin", "check", "phasegate-lego"],
        capture_output=True,
        text=True,
        env=environment,
        check=False,
    )
    assert " failed, " in done.stdout.splitlines()[-1], done.stderr
    assert "pytest" not in done.stdout
