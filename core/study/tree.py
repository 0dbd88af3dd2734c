"""What orders share: a tree of beginnings, each trained once however many orders go through it."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from rich.tree import Tree

Key = TypeVar("Key", bound=Hashable)


class PrefixTree(Generic[Key]):
    """Sequences of stage keys, held by their beginnings.

    A key is whatever tells two stages apart after the same beginning: a phase's name, or the digest of its recipe.
    """

    def __init__(self, sequences: Iterable[Sequence[Key]] = ()) -> None:
        self._children: dict[tuple[Key, ...], list[Key]] = {(): []}
        self._sequences: list[tuple[Key, ...]] = []
        for sequence in sequences:
            self.add(sequence)

    @classmethod
    def of_orders(cls, orders: Iterable[str]) -> PrefixTree[str]:
        """The tree of orders written as ``a>b>c``."""
        return PrefixTree([order.split(">") for order in orders])

    def add(self, sequence: Sequence[Key]) -> int:
        """Put a sequence in and return how many trainings it brings."""
        whole = tuple(sequence)
        new = 0
        for end in range(1, len(whole) + 1):
            if whole[:end] not in self._children:
                self._children[whole[:end]] = []
                self._children[whole[: end - 1]].append(whole[end - 1])
                new += 1
        self._sequences.append(whole)
        return new

    def __contains__(self, beginning: Sequence[Key]) -> bool:
        return tuple(beginning) in self._children

    @property
    def sequences(self) -> tuple[tuple[Key, ...], ...]:
        """What was put in, as it was put in."""
        return tuple(self._sequences)

    @property
    def naive(self) -> int:
        """Trainings where every sequence starts from nothing."""
        return sum(map(len, self._sequences))

    @property
    def shared(self) -> int:
        """Trainings where every beginning is trained once."""
        return len(self._children) - 1

    def new(self, sequence: Sequence[Key]) -> int:
        """Trainings that this sequence would add to those of the tree."""
        whole = tuple(sequence)
        return sum(whole[:end] not in self._children for end in range(1, len(whole) + 1))

    def missing(self, present: Callable[[tuple[Key, ...]], bool]) -> int:
        """Trainings that are left where ``present`` tells of a beginning whether the store has it."""
        return sum(not present(beginning) for beginning in self._children if beginning)

    def weigh(self, weight: Callable[[Key], float]) -> tuple[float, float]:
        """The cost without and with sharing, where one training of a key costs ``weight(key)``."""
        naive = sum(weight(key) for sequence in self._sequences for key in sequence)
        return naive, sum(weight(beginning[-1]) for beginning in self._children if beginning)

    def visit(self) -> list[int]:
        """The sequences by number, depth first: one is finished before the beginning that it shares is left.

        At most as many checkpoints as a sequence is long are in use at any time. Sequences and branches keep the order
        in which they came, so the first stays first.
        """
        numbers: dict[tuple[Key, ...], list[int]] = {}
        for number, sequence in enumerate(self._sequences):
            numbers.setdefault(sequence, []).append(number)
        return [number for beginning in self._depth_first(()) for number in numbers.get(beginning, ())]

    def draw(
        self, title: str, ends: Callable[[int], str] | None = None, label: Callable[[Key], str] = str, limit: int = 60
    ) -> Tree:
        """The tree for a terminal, phases in one line up to where sequences part or end.

        ``ends`` names a sequence by its number, behind the phase where it ends. At most ``limit`` lines are drawn, and
        the last says how many beginnings are left out.
        """
        from rich.tree import Tree

        drawn = Tree(title, highlight=False)
        room, shown = limit, 0
        named: dict[tuple[Key, ...], list[int]] = {}
        for number, sequence in enumerate(self._sequences):
            named.setdefault(sequence, []).append(number)
        rest: list[tuple[Tree, tuple[Key, ...]]] = [(drawn, (key,)) for key in reversed(self._children[()])]
        while rest and room:
            branch, beginning = rest.pop()
            words = [label(beginning[-1])]
            shown += 1
            while beginning not in named and len(self._children[beginning]) == 1:
                beginning = (*beginning, self._children[beginning][0])
                words.append(label(beginning[-1]))
                shown += 1
            text = " > ".join(words)
            if ends is not None and beginning in named:
                text += f"  [{', '.join(ends(number) for number in named[beginning])}]"
            room -= 1
            leaf = branch.add(_plain(text))
            rest += [(leaf, (*beginning, key)) for key in reversed(self._children[beginning])]
        if rest:
            drawn.add(_plain(f"… and {self.shared - shown:,} more trainings"))
        return drawn

    def _depth_first(self, beginning: tuple[Key, ...]) -> Iterator[tuple[Key, ...]]:
        yield beginning
        for key in self._children[beginning]:
            yield from self._depth_first((*beginning, key))


def _plain(text: str) -> str:
    from rich.markup import escape

    return escape(text)
