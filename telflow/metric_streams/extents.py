"""Lists of numbers by slot, of any length each, in a few long arrays: read and replaced many at a time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

__all__ = ["Extents", "cells_of"]

Ints: TypeAlias = npt.NDArray[np.int64]
Numbers: TypeAlias = npt.NDArray[Any]

_SMALLEST = 1024


def cells_of(first: Ints, sizes: Ints) -> Ints:
    """Return the places of all cells of some lists, list by list.

    >>> cells_of(np.array([10, 0]), np.array([2, 3])).tolist()
    [10, 11, 0, 1, 2]
    """
    ends = np.cumsum(sizes)
    return np.asarray(np.arange(int(ends[-1]) if len(ends) else 0) + np.repeat(first - (ends - sizes), sizes))


class Extents:
    """A list for each slot; each of its elements has one number per column.

    What a list leaves behind is cleared up when it is more than half of everything, so a change costs what it changes.

    >>> lists = Extents({"n": np.int64})
    >>> lists.grow(2)
    >>> lists.put(np.array([1, 0]), np.array([2, 1]), [np.array([7, 8, 9])])
    >>> sizes, (numbers,) = lists.get(np.array([0, 1]))
    >>> sizes.tolist(), numbers.tolist()
    ([1, 2], [9, 7, 8])
    """

    def __init__(self, columns: Mapping[str, Any]) -> None:
        self._names = list(columns)
        self._arrays: list[Numbers] = [np.empty(_SMALLEST, dtype) for dtype in columns.values()]
        self._used = 0
        self._first: Ints = np.empty(0, np.int64)
        self._size: Ints = np.empty(0, np.int64)

    def grow(self, slots: int) -> None:
        """Make room for slots below `slots`; a new one has an empty list."""
        if slots <= len(self._first):
            return
        more = np.zeros(slots - len(self._first), np.int64)
        self._first = np.append(self._first, more)
        self._size = np.append(self._size, more)

    def get(self, slots: Ints) -> tuple[Ints, list[Numbers]]:
        """Return the lengths of some lists, and their columns, list by list."""
        sizes = self._size[slots]
        places = cells_of(self._first[slots], sizes)
        return sizes, [array[places] for array in self._arrays]

    def put(self, slots: Ints, sizes: Ints, columns: Sequence[Numbers]) -> None:
        """Replace some lists; the slots are distinct."""
        total = int(sizes.sum())
        in_place = np.array_equal(self._size[slots], sizes)
        if not in_place:
            self._size[slots] = 0
            self._make_room(total)
            self._size[slots] = sizes
            self._first[slots] = self._used + np.cumsum(sizes) - sizes
            self._used += total
        places = cells_of(self._first[slots], sizes)
        for array, column in zip(self._arrays, columns, strict=True):
            array[places] = column

    def keep(self, slots: Ints) -> None:
        """Forget all other slots: slot ``slots[i]`` becomes ``i``."""
        self._first, self._size = self._first[slots], self._size[slots]
        self._make_room(0)

    def state(self) -> dict[str, Any]:
        """Return everything as plain data that later changes do not touch."""
        self._compact(int(self._size.sum()))
        arrays = {name: array[: self._used].copy() for name, array in zip(self._names, self._arrays, strict=True)}
        return {"size": self._size.copy(), **arrays}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take over what `state` returned."""
        self._size = state["size"].copy()
        self._first = np.cumsum(self._size) - self._size
        self._arrays = [state[name].copy() for name in self._names]
        self._used = int(self._size.sum())

    def _make_room(self, more: int) -> None:
        needed = int(self._size.sum()) + more
        if self._used + more > len(self._arrays[0]) or self._used > max(2 * needed, _SMALLEST):
            self._compact(2 * needed)

    def _compact(self, capacity: int) -> None:
        places = cells_of(self._first, self._size)
        for number, array in enumerate(self._arrays):
            moved = np.empty(max(capacity, _SMALLEST), array.dtype)
            moved[: len(places)] = array[places]
            self._arrays[number] = moved
        self._first = np.cumsum(self._size) - self._size
        self._used = len(places)
