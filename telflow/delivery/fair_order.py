"""In which order waiting work is done: owners take turns, and what failed stands aside until its time has come."""

from __future__ import annotations

import heapq
import itertools
from collections import OrderedDict, deque
from collections.abc import Hashable, Iterator
from collections.abc import Set as AbstractSet
from typing import Generic, TypeVar

__all__ = ["FairOrder"]

_T = TypeVar("_T")


class FairOrder(Generic[_T]):
    """Work of several owners, first in first out for each of them; not locked.

    An owner with a thousand pieces of work waits for its turn as one with a single piece does. What is put aside holds
    nobody up, not even its own owner's other work.

    >>> order = FairOrder[str]()
    >>> for owner, work in (("a", "a1"), ("a", "a2"), ("a", "a3"), ("b", "b1")):
    ...     order.add(owner, work)
    >>> [order.take(now_s=0) for _ in range(3)]
    ['a1', 'b1', 'a2']
    >>> order.put_aside("b", "b1", due_s=5.0)
    >>> order.take(now_s=1), order.take(now_s=1), order.due_s(now_s=1), order.take(now_s=5)
    ('a3', None, 5.0, 'b1')
    """

    def __init__(self) -> None:
        self._turns: OrderedDict[Hashable, deque[_T]] = OrderedDict()
        self._ready = 0
        self._aside: list[tuple[float, int, Hashable, _T]] = []
        self._count = itertools.count()  # of two that are due at the same moment, the first put aside comes first

    def __len__(self) -> int:
        return self._ready + len(self._aside)

    def __iter__(self) -> Iterator[_T]:
        """All work, in no particular order."""
        for works in self._turns.values():
            yield from works
        for *_, work in self._aside:
            yield work

    @property
    def ready(self) -> int:
        """Pieces of work that can be taken; those aside whose time has come are counted once somebody asks for work."""
        return self._ready

    @property
    def aside(self) -> int:
        """Pieces of work that stand aside."""
        return len(self._aside)

    def add(self, owner: Hashable, work: _T) -> None:
        """Add work behind the owner's other work."""
        self._turns.setdefault(owner, deque()).append(work)
        self._ready += 1

    def put_aside(self, owner: Hashable, work: _T, *, due_s: float) -> None:
        """Keep work back until `due_s`."""
        heapq.heappush(self._aside, (due_s, next(self._count), owner, work))

    def take(self, *, now_s: float) -> _T | None:
        """Remove and return what is to be done now; None when there is nothing."""
        while self._aside and self._aside[0][0] <= now_s:
            _, _, owner, work = heapq.heappop(self._aside)
            self._turns.setdefault(owner, deque()).appendleft(work)
            self._ready += 1
        if not self._turns:
            return None
        owner, works = self._turns.popitem(last=False)
        work = works.popleft()
        if works:
            self._turns[owner] = works  # behind the others
        self._ready -= 1
        return work

    def put_back(self, owner: Hashable, work: _T) -> None:
        """Undo a `take`."""
        self._turns.setdefault(owner, deque()).appendleft(work)
        self._turns.move_to_end(owner, last=False)
        self._ready += 1

    def due_s(self, *, now_s: float) -> float | None:
        """Return when there is something to do: now, or when the next piece aside is due; None when never."""
        if self._ready:
            return now_s
        return self._aside[0][0] if self._aside else None

    def remove(self, works: AbstractSet[_T]) -> list[_T]:
        """Remove those of `works` that are here, and return them."""
        found = [work for work in self if work in works]
        for owner in list(self._turns):
            left = deque(work for work in self._turns[owner] if work not in works)
            self._ready -= len(self._turns[owner]) - len(left)
            self._turns[owner] = left
            if not left:
                del self._turns[owner]
        self._aside = [entry for entry in self._aside if entry[3] not in works]
        heapq.heapify(self._aside)
        return found

    def drain(self) -> list[_T]:
        """Remove and return everything."""
        found = list(self)
        self._turns.clear()
        self._aside.clear()
        self._ready = 0
        return found
