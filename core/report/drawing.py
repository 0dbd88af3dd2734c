"""Where everything of a chart lies, in pixels: ticks, points, paths; templates turn it into SVG."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from .blocks import Axis, Boundary, Dash, Heats, Mark, Plot, Point, Series, Tree
from .numbers import number

_LEFT, _RIGHT, _TOP, _BOTTOM = 62, 14, 12, 44
_NAMED = 8  # pixels of a letter
_GAP = 0.04


@dataclass(frozen=True, slots=True, kw_only=True)
class Tick:
    """A tick: where it is along its axis, and its text."""

    at: float
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Spot:
    """A point on the page, its error bars as ends of lines, and what a pointer over it is told."""

    x: float
    y: float
    bars: tuple[tuple[float, float, float, float], ...]
    told: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawn:
    """A series on the page."""

    label: str
    tone: int
    dash: Dash
    mark: Mark
    path: str
    spots: tuple[Spot, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """A vertical line, its name and where the name stands; ``row`` keeps neighbours' names apart."""

    x: float
    label: str
    minor: bool
    row: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Canvas:
    """A chart in pixels; ``left`` to ``bottom`` is the field inside the axes."""

    width: int
    height: int
    left: float
    right: float
    top: float
    bottom: float
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]
    series: tuple[Drawn, ...]
    lines: tuple[Line, ...]
    diagonal: tuple[float, float, float, float] | None
    zero: float | None


def draw(plot: Plot) -> Canvas:
    """Return where everything of a chart lies."""
    points = [point for series in plot.series for point in series.points]
    x_low, x_high = _range(plot.x, points, "x")
    y_low, y_high = _range(plot.y, points, "y")
    longest = max((len(name) for name in plot.y.names), default=0)
    left = max(_LEFT, min(0.4 * plot.width, 16 + _NAMED * longest))
    rows = _rows(plot.boundaries, lambda x: _place(x, x_low, x_high, left, plot.width - _RIGHT, False))
    top = _TOP + 16 * (max(rows) + 1 if rows else 0)
    right, bottom = plot.width - _RIGHT, plot.height - _BOTTOM

    def across(x: float) -> float:
        return round(_place(x, x_low, x_high, left, right, plot.x.log), 1)

    def up(y: float) -> float:
        return round(_place(y, y_low, y_high, bottom, top, plot.y.log), 1)

    if plot.y.names:  # the first name stands on top

        def up(y: float) -> float:
            return round(_place(y, y_low, y_high, top, bottom, False), 1)

    return Canvas(
        width=plot.width,
        height=plot.height,
        left=left,
        right=right,
        top=top,
        bottom=bottom,
        x_ticks=_ticks(plot.x, x_low, x_high, across, (right - left) / 70),
        y_ticks=_ticks(plot.y, y_low, y_high, up, (bottom - top) / 36),
        series=tuple(_drawn(series, plot, across, up) for series in plot.series),
        lines=tuple(
            Line(x=across(one.x), label=one.label, minor=one.minor, row=row)
            for one, row in zip(plot.boundaries, rows, strict=True)
        ),
        diagonal=(across(x_low), up(y_low), across(x_high), up(y_high)) if plot.diagonal else None,
        zero=across(0.0) if plot.zero and x_low <= 0 <= x_high else None,
    )


def _place(value: float, low: float, high: float, start: float, end: float, log: bool) -> float:
    if log:
        value, low, high = math.log(value), math.log(low), math.log(high)
    return start + (value - low) / (high - low) * (end - start)


def _range(axis: Axis, points: Sequence[Point], name: str) -> tuple[float, float]:
    """The ends of an axis: as asked for, or around all values and bounds with a little room."""
    if axis.names:
        return (-0.5, len(axis.names) - 0.5)
    every = [
        value
        for point in points
        for value in (getattr(point, name), getattr(point, f"{name}_low"), getattr(point, f"{name}_high"))
        if value is not None and math.isfinite(value) and (value > 0 or not axis.log)
    ]
    low, high = (min(every), max(every)) if every else (0.0, 1.0)
    if axis.log:
        return (axis.low or low / 1.1, axis.high or (high if high > low else 2 * low) * 1.1)
    room = _GAP * (high - low) or abs(high) * _GAP or 1.0
    found = (low - room if axis.low is None else axis.low, high + room if axis.high is None else axis.high)
    return found if found[0] < found[1] else (found[0], found[0] + 1.0)


def _ticks(axis: Axis, low: float, high: float, place: Callable[[float], float], most: float) -> tuple[Tick, ...]:
    from matplotlib.ticker import LogLocator, MaxNLocator

    if axis.names:
        return tuple(Tick(at=place(at), text=name) for at, name in enumerate(axis.names))
    if axis.log:
        found = [float(one) for one in LogLocator(subs=(1.0, 2.0, 5.0)).tick_values(low, high)]
        return tuple(Tick(at=place(one), text=f"{one:g}") for one in found if low <= one <= high)
    steps = MaxNLocator(nbins=max(2, min(8, int(most))), steps=[1, 2, 2.5, 5, 10]).tick_values(low, high)
    inside = [float(one) for one in steps if low - 1e-9 <= one <= high + 1e-9]
    step = inside[1] - inside[0] if len(inside) > 1 else 1.0
    digits = max(0, min(6, -math.floor(math.log10(step) + 1e-9)))
    if round(step, digits) != round(step, digits + 1):  # steps of 0.25
        digits += 1
    return tuple(Tick(at=place(one), text=number(round(one, 9) + 0.0, digits)) for one in inside)


def _drawn(series: Series, plot: Plot, across: Callable[[float], float], up: Callable[[float], float]) -> Drawn:
    good = [point for point in series.points if _shown(point, plot)]
    spots = tuple(_spot(point, plot, across, up) for point in good)
    path = ""
    if series.dash != "none" and spots:
        path = f"M{spots[0].x:g},{spots[0].y:g}"
        for spot in spots[1:]:
            path += f"H{spot.x:g}V{spot.y:g}" if series.stepped else f"L{spot.x:g},{spot.y:g}"
    return Drawn(
        label=series.label,
        tone=series.tone,
        dash=series.dash,
        mark=series.mark,
        path=path,
        spots=spots if series.mark else (),
    )


def _shown(point: Point, plot: Plot) -> bool:
    known = math.isfinite(point.x) and math.isfinite(point.y)
    return known and (point.x > 0 or not plot.x.log) and (point.y > 0 or not plot.y.log)


def _spot(point: Point, plot: Plot, across: Callable[[float], float], up: Callable[[float], float]) -> Spot:
    x, y = across(point.x), up(point.y)
    bars = []
    if point.x_low is not None and point.x_high is not None:
        bars.append((across(point.x_low), y, across(point.x_high), y))
    if point.y_low is not None and point.y_high is not None:
        bars.append((x, up(point.y_low), x, up(point.y_high)))
    told = [point.label] if point.label else []
    for axis, value in ((plot.x, point.x), (plot.y, point.y)):
        if not axis.names:
            told.append(f"{axis.label}: {number(value)}")
    return Spot(x=x, y=y, bars=tuple(bars), told="; ".join(told))


def _rows(boundaries: Sequence[Boundary], across: Callable[[float], float]) -> list[int]:
    """In which row the name of each boundary stands, so that no two names overlap."""
    ends: list[float] = []
    rows = []
    for one in boundaries:
        if one.minor or not one.label:
            rows.append(0)
            continue
        x = across(one.x)
        row = next((place for place, end in enumerate(ends) if end < x), len(ends))
        ends[row : row + 1] = [x + 7.2 * len(one.label) + 10]
        rows.append(row)
    return rows


@dataclass(frozen=True, slots=True, kw_only=True)
class Square:
    """A square of a heat map: its place, how dark (0 to 1), and what a pointer over it is told."""

    x: float
    y: float
    shade: float
    told: str


@dataclass(frozen=True, slots=True, kw_only=True)
class HeatCanvas:
    """A heat map in pixels."""

    title: str
    width: int
    height: int
    left: int
    side: int
    rows: tuple[Tick, ...]
    columns: tuple[Tick, ...]
    squares: tuple[Square, ...]


def draw_heats(heats: Heats) -> tuple[tuple[str, tuple[HeatCanvas, ...]], ...]:
    """Return the heat maps of every group in pixels; row names stand beside each one, so that it reads alone."""
    side = 17
    found = []
    for group, maps in heats.groups:
        canvases = []
        for heat in maps:
            left = 10 + 7 * max(len(name) for name in heat.rows)
            squares = tuple(
                Square(
                    x=left + side * column,
                    y=side * row,
                    shade=round(min(1.0, value / heats.top), 2),
                    told=f"{heat.rows[row]}, {heats.x_label} {heat.columns[column]}: {100 * value:.0f} %",
                )
                for row, values in enumerate(heat.values)
                for column, value in enumerate(values)
                if math.isfinite(value)
            )
            canvases.append(
                HeatCanvas(
                    title=heat.title,
                    width=left + side * len(heat.columns) + 2,
                    height=side * len(heat.rows) + 18,
                    left=left,
                    side=side,
                    rows=tuple(Tick(at=side * (row + 0.5), text=name) for row, name in enumerate(heat.rows)),
                    columns=tuple(
                        Tick(at=left + side * (place + 0.5), text=name)
                        for place, name in enumerate(heat.columns)
                        if len(heat.columns) <= 12 or place % 4 == 0
                    ),
                    squares=squares,
                )
            )
        found.append((group, tuple(canvases)))
    return tuple(found)


@dataclass(frozen=True, slots=True, kw_only=True)
class TreeCanvas:
    """A prefix tree in pixels: boxes with names and the paths between them."""

    width: int
    height: int
    boxes: tuple[tuple[float, float, float, str, bool], ...]
    paths: tuple[str, ...]


def draw_tree(tree: Tree) -> TreeCanvas:
    """Return a prefix tree in pixels, the root on the left."""
    wide = 26 + 7 * max((len(node.name) for node in tree.nodes), default=1)
    step, row = wide + 26, 30
    places = [(4 + step * node.depth, 4 + row * node.row) for node in tree.nodes]
    paths = []
    for node, (x, y) in zip(tree.nodes, places, strict=True):
        if node.parent is not None:
            left, above = places[node.parent]
            start, middle = left + wide, left + wide + 13
            paths.append(f"M{start:g},{above + 11:g}C{middle:g},{above + 11:g} {middle:g},{y + 11:g} {x:g},{y + 11:g}")
    return TreeCanvas(
        width=round(max((x for x, _ in places), default=0) + wide + 8),
        height=round(max((y for _, y in places), default=0) + 30),
        boxes=tuple((x, y, wide, node.name, node.leaf) for node, (x, y) in zip(tree.nodes, places, strict=True)),
        paths=tuple(paths),
    )
