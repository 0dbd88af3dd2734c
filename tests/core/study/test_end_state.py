"""The end of a run: every gate of the curriculum on the last model, comparisons where both sides exist."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

from phasegate.core.config.schema import (
    CriterionSection,
    Experiment,
    MetricSection,
    PhaseSection,
    ScoreSection,
    StepSection,
)
from phasegate.core.study.ending import NOT_EVALUATED, Ending
from phasegate.evals.measurement import Measurement, missing

WHOLE = Experiment(
    name="x",
    phases={
        "read": PhaseSection(gates={"known": CriterionSection(use="choice", metric="acc", at_least=0.5)}),
        "speak": PhaseSection(
            steps={"sft": StepSection(), "dpo": StepSection()},
            gates={
                "known": CriterionSection(use="choice", metric="acc", at_least=0.5),  # the same again
                "kept": CriterionSection(
                    use="choice", metric="acc", statistic="difference", against="parent", at_least=-0.5
                ),
                "won": CriterionSection(
                    use="judge", metric="score", statistic="win_rate", against="./sft", at_least=0.3
                ),
            },
        ),
        "doubt": PhaseSection(
            gates={
                "sure": CriterionSection(use="calibration", metric="ece", at_most=0.5),
                "medical": CriterionSection(use="calibration", metric="wrong/medicine", at_most=0.5),
            }
        ),
    },
)


class Fake:
    """Measures the same of every model, and remembers what it was asked for."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str, str | None]] = []

    def measure(
        self, stage: Any, section: Any, *, refit: Any = None, step: str | None = None
    ) -> dict[str, Measurement]:
        self.asked.append((section.use, stage.name, step))
        if section.use == "calibration":
            return {"ece": missing("ece", "the model has no probes")}
        values = {str(number): 1.0 for number in range(100)}
        return {
            section.metric: Measurement(metric=section.metric, value=1.0, n=100, kind="proportion", per_document=values)
        }


def ending(*phases: str, scores: dict[str, ScoreSection] | None = None) -> tuple[Ending, Fake]:
    fake = Fake()
    stages = tuple((phase, cast(Any, SimpleNamespace(name=f"{phase}-1"))) for phase in phases)
    return Ending(assessor=cast(Any, fake), whole=WHOLE, stages=stages, scores=scores or {}), fake


def test_every_gate_is_judged_once_on_the_last_model_also_of_phases_that_the_run_skipped() -> None:
    end, fake = ending("read", "speak")
    found = end.measured()
    # known once, kept, won; sure and medical belong to a phase that the run has not, and cannot be measured.
    assert found.verdicts == {"pass": 3, "fail": 0, "undecided": 0, NOT_EVALUATED: 2}
    assert ("choice", "read-1", None) in fake.asked
    assert ("judge", "speak-1", "sft") in fake.asked


def test_a_comparison_without_its_other_side_in_this_run_is_not_judged() -> None:
    end, fake = ending("speak")
    assert end.measured().verdicts["pass"] == 2  # known, and the win over its own first step
    end, fake = ending("read")
    assert end.measured().verdicts["pass"] == 1
    assert not any(step for _, _, step in fake.asked)


def test_what_could_not_be_measured_is_there_without_a_value() -> None:
    end, _ = ending("read", "speak")
    assert end.measured().capabilities == {
        "choice acc": 1.0,
        "judge score": 1.0,
        "calibration ece": None,
        "calibration wrong/medicine": None,
    }


def test_a_score_lacks_a_value_where_one_of_its_metrics_does() -> None:
    score = ScoreSection(
        of={"known": MetricSection(use="choice", metric="acc"), "sure": MetricSection(use="calibration", metric="ece")}
    )
    found = ending("read", scores={"both": score})[0].measured()
    assert found.scores == {"both": None}
    assert found.parts == {"both": {"known": 1.0, "sure": None}}
