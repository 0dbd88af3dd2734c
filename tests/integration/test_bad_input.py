"""What a user can get wrong ends in one sentence and exit code 2, and nothing is lost."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

Platform = Callable[..., int]

FEWER_DATA = "--set=data.sources={texts: {use: files, paths: [nothing/*.txt], domain: general}}"


@pytest.mark.parametrize(
    "change,said",
    [
        ("--set=model.router=linnear", "Did you mean 'linear'"),
        ("--set=phases.foundation.steps.pretrain.lerning_rate=1", "learning_rate"),
        ("--set=phases.foundation.gates.knowledge.metric=akk", "acc"),
        (FEWER_DATA, "nothing/*.txt"),
        ("--set=tokenizer.vocab_size=100", "261"),
        ("--set=phases.foundation.steps.pretrain.accumulate=3", "accumulate"),
        ("--set=order=specialization>alignment", "knowledge"),
        ("--set=phases.specialization.gates.cross-domain.against=fundation", "parent"),
        ("--set=model.num_experts_per_tok=9", "num_experts_per_tok"),
        ("--set=model.num_key_value_heads=3", "num_key_value_heads"),
        ("--set=seed=many", "seed"),
    ],
)
def test_a_mistake_is_one_sentence_that_names_the_cure(
    change: str, said: str, tiny: Path, platform: Platform, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert platform("train", str(tiny), change) == 2
    err = capsys.readouterr().err
    assert said in err and err.startswith("error: ") and "Traceback" not in err
    assert not list(tmp_path.glob("store/*/COMPLETE"))


def test_a_work_folder_that_something_else_made_is_refused_and_left_alone(
    tiny: Path, platform: Platform, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from phasegate.core.cli.options import plan_of
    from phasegate.core.run.store import Store

    only = ["order=foundation"]
    name = plan_of(str(tiny), only, None, Store(tmp_path / "store")).stages[0].recipe.name
    foreign = tmp_path / "store" / ".work" / name
    foreign.mkdir(parents=True)
    (foreign / "thesis.txt").write_text("mine")
    assert platform("train", str(tiny), "--set", only[0]) == 2
    assert "was not made by a run" in capsys.readouterr().err
    assert (foreign / "thesis.txt").read_text() == "mine"


def test_a_full_disk_is_named_and_the_run_goes_on_when_there_is_room(
    tiny: Path, platform: Platform, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import errno

    from phasegate.core.run import store

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(store, "sync_file", full)
        assert platform("train", str(tiny), "--set=order=foundation") == 2
    assert "full" in capsys.readouterr().err
    assert not list(tmp_path.glob("store/*/COMPLETE"))
    assert platform("train", str(tiny), "--set=order=foundation") == 0
