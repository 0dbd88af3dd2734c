"""Experts as blocks of a page: who routes what at every boundary, what moved, and what is lost without each."""

from __future__ import annotations

import math
from collections.abc import Iterable

from .blocks import Axis, Block, Cell, Heat, Heats, Panels, Plot, Point, Prose, Series, Table, cells, figure
from .facts import AblationFacts, RoutingFacts, RunFacts
from .numbers import NOT_MEASURED, NOTHING, interval, listed, number, percent, several, signed

_SQUARES = 6000  # on one page
_LAYERS = 24  # lines in one small chart


def expert_blocks(run: RunFacts) -> Iterable[Block]:
    """Load and entropy by domain and layer at every phase boundary, owners of experts, and changes of weights."""
    if run.routing:
        yield from _routing(run.routing)
    else:
        yield Prose(
            paragraphs=(
                "Routing was not measured: no phase of this run has a routing gate, or the model has no routers.",
            )
        )
    yield from _weights(run)


def _routing(routing: tuple[RoutingFacts, ...]) -> Iterable[Block]:
    first, last = routing[0], routing[-1]
    names = tuple(one.phase for one in routing)
    experts = len(last.load[0])
    uniform = math.log(experts)
    means = [[_mean([layer[d] for layer in one.entropy]) for d in range(len(one.domains))] for one in routing]
    narrow = min(range(len(last.domains)), key=lambda d: means[-1][d])
    wide = max(range(len(last.domains)), key=lambda d: means[-1][d])
    yield Panels(
        title="How many experts share a domain?",
        told=f"Entropy of routing averages {number(_mean(means[0]), 2)} nats after {first.phase} and "
        f"{number(_mean(means[-1]), 2)} after {last.phase}, where {number(uniform, 2)} would be uniform over {experts} "
        f"experts; at the end {last.domains[narrow]} is narrowest ({number(means[-1][narrow], 2)}) and "
        f"{last.domains[wide]} widest ({number(means[-1][wide], 2)}).",
        plots=tuple(
            Plot(
                title=domain,
                told=", ".join(f"{name} {number(row[d], 2)}" for name, row in zip(names, means, strict=True)),
                x=Axis(label="after phase", names=tuple(_short(names))),
                y=Axis(label="entropy, nats", low=0.0, high=1.05 * uniform),
                series=(
                    *(
                        Series(
                            label="one layer" if not layer else "",
                            points=tuple(Point(x=at, y=one.entropy[layer][d]) for at, one in enumerate(routing)),
                            tone=6,
                        )
                        for layer in range(min(_LAYERS, len(last.entropy)))
                    ),
                    Series(
                        label="mean over layers",
                        points=tuple(
                            Point(x=at, y=row[d], label=name)
                            for at, (name, row) in enumerate(zip(names, means, strict=True))
                        ),
                        mark="circle",
                    ),
                ),
                width=270,
                height=200,
            )
            for d, domain in enumerate(last.domains)
        ),
    )
    if experts * (len(last.domains) + 1) * len(routing) > 2 * _SQUARES:
        yield Prose(
            paragraphs=(f"{experts} experts are too many to draw who routes what; the JSON of this report has it.",)
        )
        return
    yield _heats(routing, experts)
    for layer in _layers(routing, experts):
        yield Table(
            caption=f"Owners in layer {layer}: the domain with the largest part of each expert's tokens, and that part",
            columns=("expert", *names),
            rows=tuple(
                (Cell(text=str(expert)), *(_owner(one, layer, expert) for one in routing)) for expert in range(experts)
            ),
            folded=True,
        )


def _layers(routing: tuple[RoutingFacts, ...], experts: int) -> list[int]:
    """The layers that are drawn: all of them, or the first, the last and some between."""
    layers, domains = len(routing[-1].shares), len(routing[-1].domains) + 1
    room = max(1, _SQUARES // (experts * domains * len(routing)))
    if layers <= room:
        return list(range(layers))
    return sorted({round(place * (layers - 1) / max(1, room - 1)) for place in range(room)})


def _heats(routing: tuple[RoutingFacts, ...], experts: int) -> Heats:
    shown, layers = _layers(routing, experts), len(routing[-1].shares)
    some = "" if len(shown) == layers else f" Drawn: {len(shown)} of {layers} layers; the JSON has all."
    lasts = routing[-1]
    busiest = max(max(row) for row in lasts.load)
    idlest = min(min(row) for row in lasts.load)
    return Heats(
        title="Who routes what?",
        told=f"Share of each domain's tokens by expert and layer; the row ‘all’ is the load. After {lasts.phase} the "
        f"busiest expert of a layer gets {percent(busiest, 1)} of the tokens and the idlest {percent(idlest, 1)} "
        f"({percent(1 / experts, 1)} is even).{some}",
        x_label="expert",
        y_label="domain",
        top=0.6,
        groups=tuple(
            (
                f"layer {layer}",
                tuple(
                    Heat(
                        title=one.phase,
                        rows=(*one.domains, "all"),
                        columns=tuple(map(str, range(experts))),
                        values=(*one.shares[layer], one.load[layer]),
                    )
                    for one in routing
                ),
            )
            for layer in shown
        ),
    )


def _owner(one: RoutingFacts, layer: int, expert: int) -> Cell:
    owner = one.owners[layer][expert]
    if owner is None:
        return Cell(text="no token", tone="quiet")
    column = [domain[expert] for domain in one.shares[layer] if math.isfinite(domain[expert])]
    part = one.shares[layer][one.domains.index(owner)][expert] / sum(column)
    return Cell(text=f"{owner} {percent(part)}")


def _weights(run: RunFacts) -> Iterable[Block]:
    if not run.weights:
        return
    roles = tuple(dict.fromkeys(role for one in run.weights for role in one.roles))
    most = max(run.weights, key=lambda one: one.relative or 0.0)
    yield Table(
        caption=f"How far each phase moved the weights, relative to their size; {most.phase} moved them most",
        columns=("phase", "all weights", *roles, "tensors changed"),
        rows=tuple(
            (
                Cell(text=one.phase),
                figure(one.relative, percent(one.relative, 1)),
                *(figure(one.roles.get(role), percent(one.roles.get(role), 1)) for role in roles),
                figure(one.changed, f"{one.changed} of {one.tensors}"),
            )
            for one in run.weights
        ),
    )


def ablation_blocks(found: AblationFacts | None) -> Iterable[Block]:
    """The model without each of its experts."""
    if found is None:
        yield Prose(paragraphs=(f"The loss without single experts was {NOT_MEASURED}: no phase has an ablation gate.",))
        return
    yield Prose(
        paragraphs=(
            f"After {found.phase}, {found.hits} of {several(found.n, 'expert')} hurt the domain that owns them most "
            f"when they are taken out of every layer (chance {percent(found.chance)}).",
        )
    )
    yield Table(
        caption=f"Change of the mean log-likelihood ({found.unit}) without each expert, masked and re-routed, on "
        f"{found.documents:,} held-out documents ({found.tokens:,} tokens); negative is harm; * marks a most affected "
        "domain whose bounds lie below all others'",
        columns=("expert", "owner", "mean change and bounds", "most affected", "its change", "owner hit most"),
        rows=tuple(
            (
                *cells(str(row.expert), row.owner or NOTHING),
                figure(row.mean.value, signed(row.mean.value), interval(row.mean.low, row.mean.high)),
                Cell(text=f"{row.most}{' *' if row.clear else ''}"),
                figure(row.drop, signed(row.drop)),
                Cell(text=NOTHING if row.owner is None else "yes" if row.owner == row.most else "no"),
            )
            for row in found.rows
        ),
    )
    domains = tuple(found.rows[0].domains) if found.rows else ()
    yield Table(
        caption=f"The same by domain: {listed(domains)}",
        columns=("expert", *domains),
        rows=tuple(
            (
                Cell(text=str(row.expert)),
                *(figure(v.value, signed(v.value), interval(v.low, v.high)) for v in row.domains.values()),
            )
            for row in found.rows
        ),
        folded=True,
    )


def _mean(values: list[float]) -> float:
    known = [value for value in values if math.isfinite(value)]
    return math.fsum(known) / len(known) if known else math.nan


def _short(names: tuple[str, ...]) -> Iterable[str]:
    """Names short enough for a small chart, still apart."""
    for place, name in enumerate(names):
        short = name[:5]
        yield f"{place + 1}" if any(other[:5] == short for other in names if other != name) else short
