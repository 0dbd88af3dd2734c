"""What a page is made of: sections of prose, tables and figures, the same for every rendering."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias

Tone = Literal["", "pass", "fail", "undecided", "better", "worse", "quiet"]
Mark = Literal["", "circle", "square", "diamond", "cross", "ring"]
Dash = Literal["none", "solid", "dashed", "dotted"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """A cell of a table: its text, a smaller second line, and a tone that the text says too (never colour alone)."""

    text: str
    note: str = ""
    tone: Tone = ""
    number: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """Rows under columns; the first cell of a row names it. ``folded`` is shown only when asked for."""

    caption: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    folded: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Prose:
    """Paragraphs; ``quiet`` ones are remarks."""

    paragraphs: tuple[str, ...]
    quiet: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Code:
    """A text as it is, folded away."""

    title: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """A point of a chart; bounds where they are known."""

    x: float
    y: float
    x_low: float | None = None
    x_high: float | None = None
    y_low: float | None = None
    y_high: float | None = None
    label: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """Points of one kind; told apart by mark and dash as well as by colour (``tone`` 0 to 7)."""

    label: str
    points: tuple[Point, ...]
    tone: int = 0
    dash: Dash = "solid"
    mark: Mark = ""
    stepped: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Axis:
    """An axis: what it measures in which unit; ``names`` label whole numbers from 0 on, where it has no unit."""

    label: str
    low: float | None = None
    high: float | None = None
    log: bool = False
    names: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Boundary:
    """A vertical line with its name: where a phase begins; ``minor`` ones are steps within it and have no name."""

    x: float
    label: str = ""
    minor: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Plot:
    """A chart: its title says its finding or question, ``told`` the same in words for those who cannot see it."""

    title: str
    told: str
    x: Axis
    y: Axis
    series: tuple[Series, ...]
    boundaries: tuple[Boundary, ...] = ()
    diagonal: bool = False
    zero: bool = False
    width: int = 720
    height: int = 320


@dataclass(frozen=True, slots=True, kw_only=True)
class Panels:
    """Small charts with the same axes, and one legend for them all."""

    title: str
    told: str
    plots: tuple[Plot, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Heat:
    """A small table of shares between 0 and 1, drawn as squares."""

    title: str
    rows: tuple[str, ...]
    columns: tuple[str, ...]
    values: tuple[tuple[float, ...], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Heats:
    """Heat maps in a grid, by row; ``top`` is what the darkest square stands for."""

    title: str
    told: str
    x_label: str
    y_label: str
    top: float
    groups: tuple[tuple[str, tuple[Heat, ...]], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """A training in a prefix tree: what it trains, how deep and which parent (by place) it goes on from."""

    name: str
    depth: int
    row: float
    parent: int | None
    leaf: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Tree:
    """A prefix tree: trainings that orders share stand once."""

    title: str
    told: str
    nodes: tuple[Node, ...]


Block: TypeAlias = Code | Heats | Panels | Plot | Prose | Table | Tree


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """A part of a page with an anchor."""

    key: str
    title: str
    blocks: tuple[Block, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """A page: what it is of, the answer in sentences, and the evidence in sections."""

    title: str
    kind: str
    about: tuple[tuple[str, str], ...]
    answer: tuple[str, ...]
    sections: tuple[Section, ...]


def figure(value: float | None, text: str, note: str = "", tone: Tone = "") -> Cell:
    """A cell with a number."""
    return Cell(text=text, note=note, tone="quiet" if value is None else tone, number=True)


def cells(*texts: str) -> tuple[Cell, ...]:
    """Plain cells."""
    return tuple(Cell(text=text) for text in texts)


def facts_table(caption: str, facts: Mapping[str, str]) -> Table:
    """Two columns: a name and what it is."""
    return Table(caption=caption, columns=("what", "value"), rows=tuple(cells(*pair) for pair in facts.items()))
