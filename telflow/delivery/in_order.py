"""Strictly one after the other: for a destination that refuses what is overtaken."""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable, Iterator
from collections.abc import Set as AbstractSet
from typing import Generic, TypeVar

__all__ = ["InOrder"]

_T = TypeVar("_T")


class InOrder(Generic[_T]):
    """Work in the order in which it came, whoever owns it; `FairOrder` with its methods where order does not matter.

    A piece of work that is put aside holds up all that came after it.

    >>> order = InOrder[str]()
    >>> order.add("a", "a1"), order.add("b", "b1")
    (None, None)
    >>> order.take(now_s=0)
    'a1'
    >>> order.put_aside("a", "a1", due_s=5.0)
    >>> order.take(now_s=1), order.due_s(now_s=1), order.take(now_s=5), order.take(now_s=5)
    (None, 5.0, 'a1', 'b1')
    """

    def __init__(self) -> None:
        self._works: deque[_T] = deque()
        self._due_s = 0.0
        self._blocked = False

    def __len__(self) -> int:
        return len(self._works)

    def __iter__(self) -> Iterator[_T]:
        """All work, oldest first."""
        return iter(self._works)

    @property
    def ready(self) -> int:
        """Pieces of work that can be taken."""
        return 0 if self._blocked else len(self._works)

    @property
    def aside(self) -> int:
        """Pieces of work that stand aside: one, or none."""
        return int(self._blocked)

    def add(self, owner: Hashable, work: _T) -> None:
        """Add work behind all other."""
        del owner
        self._works.append(work)

    def put_aside(self, owner: Hashable, work: _T, *, due_s: float) -> None:
        """Keep work, and all that came after it, back until `due_s`."""
        self.put_back(owner, work)
        self._due_s, self._blocked = due_s, True

    def take(self, *, now_s: float) -> _T | None:
        """Remove and return what is to be done now; None when there is nothing."""
        if self._blocked and now_s < self._due_s:
            return None
        self._blocked = False
        return self._works.popleft() if self._works else None

    def put_back(self, owner: Hashable, work: _T) -> None:
        """Undo a `take`."""
        del owner
        self._works.appendleft(work)

    def due_s(self, *, now_s: float) -> float | None:
        """Return when there is something to do: now, or when what stands aside is due; None when never."""
        if not self._works:
            return None
        return self._due_s if self._blocked else now_s

    def remove(self, works: AbstractSet[_T]) -> list[_T]:
        """Remove those of `works` that are here, and return them."""
        found = [work for work in self._works if work in works]
        if self._blocked and self._works[0] in works:
            self._blocked = False
        self._works = deque(work for work in self._works if work not in works)
        return found

    def drain(self) -> list[_T]:
        """Remove and return everything."""
        found = list(self._works)
        self._works.clear()
        self._blocked = False
        return found
