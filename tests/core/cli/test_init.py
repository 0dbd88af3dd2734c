"""``platform init``: a preset as a file of one's own."""

from __future__ import annotations

from pathlib import Path

import pytest
from phasegate.core.cli.app import main
from phasegate.core.config.loading import load_experiment
from phasegate.core.config.presets import preset_content


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(*arguments: str) -> int | str | None:
    with pytest.raises(SystemExit) as ended:
        main(["init", *arguments])
    return ended.value.code


def test_the_preset_is_written_with_its_comments(folder: Path) -> None:
    assert run() == 0
    assert (folder / "ncas-nano.yaml").read_bytes() == preset_content("ncas-nano")
    assert b"#" in preset_content("ncas-nano")


def test_a_name_becomes_the_experiments_and_the_files(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("mine") == 0
    assert load_experiment("mine.yaml").experiment.name == "mine"
    assert capsys.readouterr().out == "mine.yaml is written. Next: platform plan mine.yaml\n"


@pytest.mark.parametrize("name", ["4e3", "2026", "true", "null"])
def test_a_name_that_looks_like_a_number_stays_a_name(name: str) -> None:
    assert run(name) == 0
    assert load_experiment(f"{name}.yaml").experiment.name == name


def test_nothing_but_the_name_differs_from_the_preset(folder: Path) -> None:
    run("mine")
    written = (folder / "mine.yaml").read_text().splitlines()
    shipped = preset_content("ncas-nano").decode().splitlines()
    assert [line for line in written if line not in shipped] == ["name: mine"]


def test_a_file_is_never_overwritten(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "mine.yaml").write_text("precious")
    assert run("mine") == 2
    assert (folder / "mine.yaml").read_text() == "precious"
    assert (
        capsys.readouterr().err
        == "error: mine.yaml exists already and is not overwritten; choose another name with -o.\n"
    )


def test_the_file_may_have_a_name_of_its_own(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("mine", "-o", "other.yml") == 0
    assert load_experiment("other.yml").experiment.name == "mine"
    assert run("mine", "-o", "bare") == 0
    assert capsys.readouterr().out.endswith("Next: platform plan ./bare\n")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["a/b"], "cannot be an experiment's name"),
        (["--preset", "ncas-nan"], "Did you mean 'ncas-nano'?"),
        (["-o", "gone/x.yaml"], "the folder gone does not exist"),
        (["-o", "."], "exists already"),
    ],
)
def test_what_cannot_be_written_is_told(arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(*arguments) == 2
    told = capsys.readouterr().err
    assert words in told
    assert told.count("\n") == 1


def test_a_disk_that_fills_up_leaves_no_half_file(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from phasegate.core.cli import init

    class Full(type(Path())):  # type: ignore[misc]
        def open(self, *arguments: object, **options: object) -> object:
            file = super().open(*arguments, **options)

            def write(_: str) -> int:
                raise OSError(28, "No space left on device")

            return _Wrapped(file, write)

    with pytest.raises(OSError, match="No space left"):
        init.write_new(Full(folder / "x.yaml"), "text")
    assert not (folder / "x.yaml").exists()


class _Wrapped:
    def __init__(self, file: object, write: object) -> None:
        self.file, self.write = file, write

    def __enter__(self) -> _Wrapped:
        return self

    def __exit__(self, *_: object) -> None:
        self.file.close()  # type: ignore[attr-defined]
