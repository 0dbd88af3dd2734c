"""The trackers that an experiment may name."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from phasegate.core.config.schema import Experiment
from phasegate.core.config.trackers import TRACKERS


def test_an_unknown_tracker_is_refused_with_its_line_and_the_nearest(
    good: str, mistakes: Callable[..., list[str]]
) -> None:
    (told,) = mistakes(good + "run:\n  report_to: [tensorboard, tensorbord]\n")
    assert told.startswith(
        "trial.yaml:10: run.report_to: there is no tracker 'tensorbord'. Did you mean 'tensorboard'?"
    )


def test_a_single_name_is_asked_for_as_a_list(good: str, mistakes: Callable[..., list[str]]) -> None:
    (told,) = mistakes(good + "run:\n  report_to: tensorboard\n")
    assert "run.report_to must be a list" in told


@pytest.mark.parametrize("name", ["all", "none", "dvclive"])
def test_what_is_no_tracker_of_one_axis_below_the_run_is_refused(
    name: str, good: str, mistakes: Callable[..., list[str]]
) -> None:
    assert f"there is no tracker '{name}'" in mistakes(good + f"run: {{report_to: [{name}]}}\n")[0]


def test_trackers_are_kept_in_the_order_given(good: str, finish: Callable[..., Experiment]) -> None:
    assert finish(good).run.report_to == ()
    assert finish(good, "run.report_to=[wandb, tensorboard]").run.report_to == ("wandb", "tensorboard")


def test_the_names_are_those_of_the_library_but_for_the_one_that_cannot_be_placed() -> None:
    from transformers.integrations import integration_utils

    assert set(TRACKERS) == set(integration_utils.INTEGRATION_TO_CALLBACK) - {"dvclive"}
