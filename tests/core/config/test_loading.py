"""Loading presets and files, overriding keys, finding places."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from phasegate import ConfigError
from phasegate.core.config.loading import Loaded, load_experiment
from phasegate.core.config.presets import preset_names
from phasegate.core.config.schema import Experiment, Ref

Load = Callable[..., Loaded]


def test_the_preset_of_the_readme_is_shipped() -> None:
    assert "ncas-nano" in preset_names()


@pytest.mark.parametrize("name", preset_names())
def test_a_preset_loads_by_its_bare_name_and_is_called_so(name: str) -> None:
    loaded = load_experiment(name)
    assert loaded.experiment.name == name
    assert loaded.path is None


def test_an_unknown_preset_names_the_nearest_and_all() -> None:
    with pytest.raises(ConfigError, match=r"no preset 'ncas-nan'\. Did you mean 'ncas-nano'\? Presets: .*ncas-nano"):
        load_experiment("ncas-nan")


def test_a_file_in_the_working_folder_cannot_hide_a_preset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "ncas-nano").write_text("name: other\n")
    monkeypatch.chdir(tmp_path)
    assert load_experiment("ncas-nano").experiment.name == "ncas-nano"


def test_plugins_of_the_command_line_follow_those_of_the_file(load: Load, tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text("name: a\nplugins: [one]\n")
    assert load_experiment(str(path), plugins=["no:one", "two"]).experiment.plugins == ("one", "no:one", "two")


def test_a_width_may_be_written_as_a_number(load: Load) -> None:
    assert load("name: x\nsize: 384\n").experiment.size == "384"


def test_a_bare_name_is_a_component_without_options(load: Load) -> None:
    experiment = load("name: x\nmodel: moe\ndata: {sources: {w: folder}}\n").experiment
    assert experiment.model.use == "moe"
    assert experiment.data.sources["w"] == Ref(use="folder")


def test_keys_that_are_no_fields_are_options_of_the_component(load: Load) -> None:
    model = load("name: x\nmodel: {use: moe, router: {use: linear, gate: top}, hidden_size: 96}\n").experiment.model
    assert model.options == {"hidden_size": 96}
    assert model.router == Ref(use="linear", options={"gate": "top"})


def test_options_may_be_written_under_their_own_key(load: Load) -> None:
    assert load("name: x\nmodel: {options: {use: y}}\n").experiment.model.options == {"use": "y"}


def test_an_empty_section_means_its_defaults(load: Load) -> None:
    assert load("name: x\nrun:\ndata:\nphases:\n").experiment == Experiment(name="x")


def test_an_override_changes_one_key(load: Load, good: str) -> None:
    loaded = load(good, "data.held_out=0.1", "seed=7", "plugins=[a, b]")
    assert loaded.experiment.data.held_out == 0.1
    assert loaded.experiment.data.sources == {"here": Ref(use="folder")}
    assert (loaded.experiment.seed, loaded.experiment.plugins) == (7, ("a", "b"))


@pytest.mark.parametrize("text", ["*.md", "a: b", "# c", "&x", "!y", "- z", "1.2.3", "yes"])
def test_an_override_is_text_unless_it_is_something_else(text: str, load: Load, good: str) -> None:
    assert load(good, f"data.sources.here.glob={text}").experiment.data.sources["here"].options == {"glob": text}


def test_the_last_override_of_a_key_wins(load: Load, good: str) -> None:
    assert load(good, "seed=1", "seed=2").experiment.seed == 2


def test_an_override_reaches_into_a_component_written_as_a_bare_name(load: Load, good: str) -> None:
    assert load(good, "data.sources.here.glob=*.md").experiment.data.sources["here"].options == {"glob": "*.md"}


def test_another_component_does_not_inherit_options(load: Load) -> None:
    text = "name: x\nmodel: {use: moe, hidden_size: 96}\n"
    assert load(text, "model.use=stock").experiment.model.options == {}
    assert load(text, "model=moe").experiment.model.options == {"hidden_size": 96}


def test_an_override_may_add_a_whole_phase(load: Load, good: str) -> None:
    assert list(load(good, "phases.again={use: polish}").experiment.phases) == ["ground", "polish", "again"]


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("seed", "there is no '='"),
        ("=3", "is not a key"),
        ("data..root=x", "is not a key"),
        ("sede=3", "Did you mean 'seed'?"),
        ("data.heldout=0.1", "data has no key 'heldout'. Did you mean 'held_out'?"),
        ("phases.grond.steps.learn.rows=8", "no phase 'grond'. Did you mean 'ground'?"),
        ("phases.ground.steps.lern.rows=8", "no step 'lern'. Did you mean 'learn'?"),
        ("phases.ground.steps.learn.row=8", "Did you mean 'rows'?"),
        ("phases.ground.gates.knows.shot=1", "no option 'shot'. Did you mean 'shots'?"),
        ("seed=[", "this is not YAML"),
        ("seed=\udcff", "not UTF-8"),
        ("seed=many", "seed must be a whole number"),
        ("seed=1e999", "too large"),
        ("seed.deeper=3", "seed must be a whole number"),
        (".".join(["a"] * 500) + "=1", "levels deep"),
    ],
)
def test_a_wrong_override_is_blamed_on_itself(
    override: str, words: str, good: str, mistakes: Callable[..., list[str]]
) -> None:
    found = mistakes(good, override)
    assert any(words in sentence and sentence.startswith(f"--set {override}") for sentence in found), found


def test_a_key_is_located_where_it_stands_or_where_its_section_stands(load: Load, good: str) -> None:
    loaded = load(good, "phases.polish.steps.talk.rows=8")
    file = str(loaded.path)
    assert loaded.locate("data.sources.here") == f"{file}:5"
    assert loaded.locate(("data", "sources", "here", "options", "glob")) == f"{file}:5"
    assert loaded.locate("phases.ground.steps.learn.rows") == f"{file}:7"
    assert loaded.locate("phases.polish.steps.talk.rows") == "--set phases.polish.steps.talk.rows=8"
    assert loaded.locate("nothing.of.this") == f"{file}:1"


def test_a_relative_root_in_a_file_starts_from_the_file(
    load: Load, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    assert load("name: x\ndata: {root: corpora}\n").experiment.data.root == str(tmp_path / "corpora")


def test_a_relative_root_on_the_command_line_starts_from_the_working_folder(
    load: Load, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    text = "name: x\ndata: {root: corpora}\n"
    assert load(text, "data.root=../other").experiment.data.root == str(tmp_path / "other")


def test_a_tokenizer_path_is_made_absolute_only_where_it_exists(load: Load, tmp_path: Path) -> None:
    (tmp_path / "words").mkdir()
    assert load("name: x\ntokenizer: {path: words}\n").experiment.tokenizer.path == str(tmp_path / "words")
    assert load("name: x\ntokenizer: {path: some/model}\n").experiment.tokenizer.path == "some/model"


def test_the_draft_that_a_step_starts_from_lies_beside_the_file_or_where_the_command_is_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for folder in ("given", "cwd/given", "cwd/other"):
        (tmp_path / folder).mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "cwd")
    path = tmp_path / "a.yaml"
    path.write_text("name: x\nphases:\n  last:\n    use: y\n    steps: {draft: {options: {path: given}}}\n")
    key = "phases.last.steps.draft.options.path"
    for said, wanted in (((), "given"), ((f"{key}=other",), "cwd/other"), ((f"{key}=nowhere",), None)):
        found = load_experiment(str(path), said).raw["phases"]["last"]["steps"]["draft"]["options"]["path"]
        assert found == (str(tmp_path / wanted) if wanted else "nowhere")
