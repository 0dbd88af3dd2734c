"""The page on studies says what is so."""

from __future__ import annotations

import re
from pathlib import Path

import yaml
from phasegate.core.config.loading import load_experiment
from phasegate.registry.plugins import Plugins

PAGE = (Path(__file__).parents[3] / "docs" / "studies.md").read_text(encoding="utf-8")


def test_the_section_of_the_page_is_one_that_an_experiment_can_have(tmp_path: Path) -> None:
    from phasegate.core.config.complete import complete

    (snippet,) = re.findall(r"```yaml\n(.*?)```", PAGE, flags=re.DOTALL)
    preset = Path(__file__).parents[3] / "core" / "config" / "presets" / "ncas-nano.yaml"
    without = {
        key: value for key, value in yaml.safe_load(preset.read_text(encoding="utf-8")).items() if key != "study"
    }
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(without, sort_keys=False) + snippet, encoding="utf-8")
    experiment = complete(load_experiment(str(path)), Plugins.load(()).components())
    assert experiment.study.objectives == ("quality",)
    assert experiment.study.scores["ece-refitted"].refit == "metacognition/probes"
    assert experiment.study.set == {"phases.alignment.options.sft_steps": 900}


def test_every_search_space_stands_on_the_page_with_all_of_its_options() -> None:
    from dataclasses import fields

    rows = dict(re.findall(r"\| `([a-z-]+)` \| (.*?) \|\n", PAGE))
    entries = [entry for entry in Plugins.load(()).components() if entry.component.kind == "search-space"]
    assert set(rows) == {entry.name for entry in entries}
    for entry in entries:
        config = entry.config_class()
        assert config is not None
        assert [field.name for field in fields(config) if f"`{field.name}`" not in rows[entry.name]] == []


def test_the_commands_of_the_page_name_options_that_there_are() -> None:
    import inspect

    from phasegate.core.cli.study import command

    given = {option for line in PAGE.splitlines() for option in re.findall(r"(?<=\s)--[a-z]+", line)}
    source = inspect.getsource(command)
    assert {option for option in given if f'"{option}"' not in source} <= {"--set"}


def test_the_search_space_of_the_page_is_one() -> None:
    from phasegate.core.study.space import Curriculum

    (snippet,) = re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL)
    space: dict[str, object] = {}
    exec(compile(snippet, "docs/studies.md", "exec"), space)
    swaps = space["Swaps"]
    assert callable(swaps)
    found = swaps().space(Curriculum(phases=("a", "b", "c"), uses={}, requires={}, provides={}))
    assert [(row.name, row.order) for row in found.rows] == [
        ("written", "a>b>c"),
        ("b-first", "b>a>c"),
        ("c-first", "a>c>b"),
    ]
