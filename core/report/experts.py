"""Experts through the curriculum: who routes what, what was changed, and what is lost without them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any

import numpy as np

from ...evals.ablation import TABLES, owners_of
from ...evals.routing import entropy
from ..run.commit import CHANGES
from ..run.store import Stage
from .evidence import Measured, json_of, tables_in, value_from, whole
from .facts import Ablated, AblationFacts, RoutingFacts, WeightFacts


def routing_of(evidence: Mapping[str, Mapping[str, Measured]]) -> Iterable[RoutingFacts]:
    """Who routes what after every phase whose routing was measured."""
    for phase, measured in evidence.items():
        tables = next(
            (
                metrics["entropy_mean"].evidence
                for key, metrics in measured.items()
                if "shares" in getattr(metrics.get("entropy_mean"), "evidence", {})
            ),
            None,
        )
        if tables is None:
            continue
        shares = np.asarray(tables["shares"], dtype=np.float64)  # shape: (L, D, E)
        domains = tuple(map(str, tables["domains"]))
        yield RoutingFacts(
            phase=phase,
            domains=domains,
            shares=tuple(tuple(tuple(row) for row in layer) for layer in shares.tolist()),
            load=tuple(tuple(map(float, row)) for row in tables["load"]),
            owners=tuple(
                tuple(domains[owner] if owner >= 0 else None for owner in layer) for layer in owners_of(shares).tolist()
            ),
            entropy=tuple(tuple(row) for row in np.round(entropy(shares), 4).tolist()),
        )


def weights_of(stages: Mapping[str, Stage]) -> Iterable[WeightFacts]:
    """How far every phase moved the weights, where it was written down."""
    for phase, stage in stages.items():
        path = stage.evidence / CHANGES
        if path.is_file():
            yield whole(path, partial(_weights, phase, json_of(path)))


def _weights(phase: str, found: Mapping[str, Any]) -> WeightFacts:
    return WeightFacts(
        phase=phase,
        relative=found["relative"],
        changed=found["changed"],
        tensors=found["tensors"],
        roles={row["role"]: row["relative"] for row in found["roles"]},
    )


def ablation_of(stages: Mapping[str, Stage]) -> AblationFacts | None:
    """What the model of the last phase that was asked loses without each expert; None where none was."""
    for phase, stage in reversed(list(stages.items())):
        path = tables_in(stage, "ablation", TABLES)
        if path is not None:
            return whole(path, partial(_ablation, phase, json_of(path)))
    return None


def _ablation(phase: str, tables: Mapping[str, Any]) -> AblationFacts:
    domains = tables["domains"]
    counts = tables["agreement"]["mask"]["experts"]
    return AblationFacts(
        phase=phase,
        unit=tables["unit"],
        tokens=tables["tokens"],
        documents=sum(tables["documents"].values()),
        hits=counts["hits"],
        n=counts["n"],
        chance=1 / len(domains),
        rows=tuple(
            Ablated(
                expert=row["expert"],
                owner=row["owner"],
                mean=value_from(row["mean"]),
                most=row["most"],
                clear=row["clear"],
                drop=row["drop"],
                domains={name: value_from(change) for name, change in row["domains"].items()},
            )
            for row in tables["experts"]
            if row["mode"] == "mask"
        ),
    )
