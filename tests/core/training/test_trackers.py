"""Trackers of a whole run: transformers' callbacks, begun and ended once."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from phasegate import ConfigError
from phasegate.core.training.trackers import RunArguments, Trackers, load_values, open_trackers
from transformers import TrainerCallback


class Recorder(TrainerCallback):
    """Keeps what it hears, and changes its logs as some trackers do."""

    def __init__(self) -> None:
        self.heard: list[Any] = []

    def on_init_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.heard.append("init")

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.heard.append(("begin", args.run_name, args.to_dict(), state.max_steps))

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
        self.heard.append((state.global_step, dict(logs)))
        logs.clear()

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.heard.append("end")


def test_a_run_is_begun_once_told_the_experiment_and_ended_once(tmp_path: Path) -> None:
    one, other = Recorder(), Recorder()
    trackers = Trackers([one, other], RunArguments(tmp_path, "tiny/now", {"seed": 3}), steps=50)
    trackers.log(10, {"loss": 2.0})
    trackers.log(40, {"loss": 1.0})
    trackers.close()
    assert one.heard == [
        "init",
        ("begin", "tiny/now", {"seed": 3}, 50),
        (10, {"loss": 2.0}),
        (40, {"loss": 1.0}),
        "end",
    ]
    assert other.heard == one.heard


def test_what_is_no_number_is_left_out_and_a_row_of_nothing_is_not_reported(tmp_path: Path) -> None:
    recorder = Recorder()
    trackers = Trackers([recorder], RunArguments(tmp_path, "r", {}), steps=1)
    trackers.log(1, {"a": float("nan"), "b": float("inf"), "c": 1})
    trackers.log(2, {"a": float("nan")})
    assert recorder.heard[2:] == [(1, {"c": 1.0})]


def test_every_expert_has_a_share_or_each_layer_its_extremes_where_there_are_very_many() -> None:
    assert load_values([[0.25, 0.75]]) == {"router/load/0/0": 0.25, "router/load/0/1": 0.75}
    many = [[0.0, *[1 / 128] * 128, 0.5]] * 2
    assert load_values(many) == {
        "router/load/0/min": 0.0,
        "router/load/0/max": 0.5,
        "router/load/1/min": 0.0,
        "router/load/1/max": 0.5,
    }


def test_tensorboard_keeps_its_file_below_the_folder_and_gives_the_numbers_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    events = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("TENSORBOARD_LOGGING_DIR", raising=False)
    folder = tmp_path / "run" / "trackers"
    trackers = open_trackers(["tensorboard", "tensorboard"], folder, "tiny/now", {"seed": 3}, 50)
    trackers.log(10, {"loss": 2.0})
    trackers.log(40, {"loss": 1.0, "gate/knowledge/acc/verdict": -1.0})
    trackers.close()
    assert [path.name for path in tmp_path.iterdir()] == ["run"]
    assert len(list(folder.iterdir())) == 1
    assert "TENSORBOARD_LOGGING_DIR" not in os.environ
    found = events.EventAccumulator(str(folder))
    found.Reload()
    assert [(point.step, point.value) for point in found.Scalars("train/loss")] == [(10, 2.0), (40, 1.0)]
    assert [point.value for point in found.Scalars("train/gate/knowledge/acc/verdict")] == [-1.0]


def test_a_place_that_the_user_chose_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("tensorboard")
    monkeypatch.setenv("TENSORBOARD_LOGGING_DIR", str(tmp_path / "mine"))
    open_trackers(["tensorboard"], tmp_path / "run", "r", {}, 1).close()
    assert list((tmp_path / "mine").iterdir()) and not list((tmp_path / "run").iterdir())


def test_a_tracker_that_cannot_begin_is_an_error_in_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("KUBEFLOW_TRAINER_SERVER_URL", raising=False)
    with pytest.raises(ConfigError, match="the tracker 'kubeflow' cannot begin: KubeflowCallback requires KUBEFLOW"):
        open_trackers(["kubeflow"], tmp_path, "r", {}, 1)
