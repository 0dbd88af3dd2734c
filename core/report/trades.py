"""The safety-helpfulness frontier that belongs to a run, or the one point that the run itself is."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from ...registry.errors import StoreError
from ..run.frontier import complied
from ..run.records import RunFolder
from ..run.store import Stage, Store
from .evidence import Measured, json_of, value_from, value_of, whole
from .facts import TradeFacts, TradePoint, Value


def trade_of(
    run: RunFolder, store: Store, stages: Mapping[str, Stage], evidence: Mapping[str, Mapping[str, Measured]]
) -> TradeFacts | None:
    """The newest frontier beside the run whose trainings start from the same model as the run's own phase, with the
    run's own points; these alone where there is no such frontier; None where refusals were not measured."""
    own = _own(stages, evidence)
    for folder in sorted(run.path.resolve().parent.glob("frontier-*"), reverse=True):
        path = folder / "frontier.json"
        if not path.is_file():
            continue
        found = json_of(path)
        phase = str(found.get("phase"))
        if phase in stages and _same_start(found, store, stages[phase]):
            return whole(path, partial(_frontier, found, folder.name, tuple(own.values())))
    if not own:
        return None
    return TradeFacts(phase=next(iter(own)), source=None, points=tuple(own.values()), area=None)


def _own(stages: Mapping[str, Stage], evidence: Mapping[str, Mapping[str, Measured]]) -> dict[str, TradePoint]:
    """The run's own point after every phase whose refusal gate has both sides."""
    found = {}
    for phase, measured in evidence.items():
        for metrics in measured.values():
            refused, harm = metrics.get("over_refused"), [one for one in metrics if one.startswith("complied/")]
            if refused is None or not harm or any(metrics[one].missing for one in harm):
                continue
            across, up = value_of(refused), value_of(complied(metrics))
            if across is not None and up is not None and across.value is not None and phase in _judging(stages, phase):
                found[phase] = TradePoint(
                    phase=phase, beta=None, over_refusal=across, compliance=up, front=False, stage=stages[phase].name
                )
    return found


def _judging(stages: Mapping[str, Stage], phase: str) -> tuple[str, ...]:
    """The phase itself where it judges refusals, else nothing: a baseline for another is no point of its own."""
    section = stages[phase].manifest["recipe"]["section"]["gates"].values()
    return (phase,) if any(gate["use"].rpartition(":")[2] == "refusal" for gate in section) else ()


def _same_start(found: Mapping[str, Any], store: Store, stage: Stage) -> bool:
    """Whether a training of the frontier that is still in the store starts from the model that the stage does."""
    for point in found.get("points", ()):
        try:
            other = store.get(str(point.get("stage")))
        except StoreError:
            continue
        return bool(other.manifest["recipe"]["parent"] == stage.manifest["recipe"]["parent"])
    return False


def _frontier(found: Mapping[str, Any], source: str, own: tuple[TradePoint, ...]) -> TradeFacts:
    points = [
        TradePoint(
            phase=found["phase"],
            beta=float(point["beta"]),
            over_refusal=value_from(point["over_refusal"]),
            compliance=value_from(point["compliance"]),
            front=bool(point["front"]),
            stage=point["stage"],
        )
        for point in found["points"]
    ]
    return TradeFacts(
        phase=found["phase"],
        source=source,
        points=(*points, *own),
        area=Value(value=found["area"], low=found["area_low"], high=found["area_high"], n=0),
    )
