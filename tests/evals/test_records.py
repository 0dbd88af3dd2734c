"""Evidence survives being written."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from phasegate.evals.criteria import Criterion, judge
from phasegate.evals.measurement import Measurement, missing
from phasegate.evals.records import (
    judgement_to_json,
    read_judgements,
    read_measurements,
    write_judgements,
    write_measurements,
)
from phasegate.registry.errors import StoreError


def test_measurements_come_back_as_they_went(tmp_path: Path) -> None:
    measured = {
        "acc": Measurement(
            metric="acc", value=0.5, n=2, kind="proportion", per_document={"a": 1.0, "b": 0.0}, chance=0.25
        ),
        "load": Measurement(metric="load", value=0.1, n=3, interval=(-math.inf, 0.2), evidence={"table": [[0.1, 0.9]]}),
    }
    write_measurements(tmp_path / "sub" / "m.json", measured)
    assert read_measurements(tmp_path / "sub" / "m.json") == measured


def test_a_missing_measurement_stays_missing(tmp_path: Path) -> None:
    write_measurements(tmp_path / "m.json", {"acc": missing("acc", "no data")})
    found = read_measurements(tmp_path / "m.json")["acc"]
    assert math.isnan(found.value) and found.missing == "no data"


def test_judgements_come_back_as_they_went(tmp_path: Path) -> None:
    measured = {"acc": Measurement(metric="acc", value=0.5, n=2, kind="proportion")}
    found = judge(Criterion(name="k", metric="acc", at_least=0.1), measured)
    write_judgements(tmp_path / "v.json", found)
    assert read_judgements(tmp_path / "v.json") == found


def test_evidence_is_strict_json() -> None:
    (found,) = judge(Criterion(name="k", metric="acc", at_least=0.1), {})
    text = json.dumps(judgement_to_json(found), allow_nan=False)
    assert json.loads(text)["value"] == "nan"


def test_damaged_evidence_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "v.json").write_text("{", encoding="utf-8")
    with pytest.raises(StoreError, match=r"v\.json"):
        read_judgements(tmp_path / "v.json")
