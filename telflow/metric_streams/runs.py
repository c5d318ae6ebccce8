"""Runs: the points of each stream, one after the other, and what goes along them: sums, extremes, chains.

All points of a batch are worked on together; nothing here takes longer because a stream has many of them. Sums of
doubles are made from left to right, so they do not depend on how points are cut into batches.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

__all__ = ["Runs", "runs_of"]

Ints: TypeAlias = npt.NDArray[np.int64]
Mask: TypeAlias = npt.NDArray[np.bool_]
Numbers: TypeAlias = npt.NDArray[Any]


class Runs:
    """Rows in the order of their streams, and within one in their own.

    Args:
        first: For each row, in that order, whether a run begins there.

    >>> runs = Runs(np.array([True, False, True]))
    >>> runs.starts.tolist(), runs.lengths.tolist(), runs.accumulate(np.add, np.array([1.0, 2.0, 5.0])).tolist()
    ([0, 2], [2, 1], [1.0, 3.0, 5.0])
    """

    def __init__(self, first: Mask) -> None:
        self.first = first
        self.starts: Ints = np.flatnonzero(first)
        self.lengths: Ints = np.diff(np.append(self.starts, len(first)))

    def __len__(self) -> int:
        return len(self.first)

    @property
    def start_of(self) -> Ints:
        """Row with which the run of each row begins."""
        return np.repeat(self.starts, self.lengths)

    @property
    def last(self) -> Ints:
        """Last row of each run."""
        return self.starts + self.lengths - 1

    def previous(self, values: Numbers, before: Numbers) -> Numbers:
        """Return the value of the row before in the run; of a run's first row ``before[run]``."""
        found = np.empty_like(values)
        found[1:] = values[:-1]
        found[self.starts] = before
        return found

    def latest(self, marked: Mask) -> Ints:
        """Return for each row the latest marked row of its run, itself included; -1 where there is none."""
        rows = np.where(marked, np.arange(len(self)), -1)
        found = np.maximum.accumulate(rows) if len(self) else rows
        return np.where(found < self.start_of, -1, found)

    def sums(self, values: Numbers) -> Numbers:
        """Return running sums of whole numbers (of each column, if there are two dimensions), modulo 2**64."""
        if len(self.starts) == len(self):
            return values
        running = np.cumsum(values, axis=0, dtype=values.dtype)
        before = running[self.starts] - values[self.starts]
        return np.asarray(running - np.repeat(before, self.lengths, axis=0))

    def accumulate(self, ufunc: np.ufunc, values: Numbers) -> Numbers:
        """Return a function's results along each run, from left to right, as `ufunc.accumulate` has them."""
        found = values.copy()
        # Runs of like length as the rows of a matrix, which is at most half empty.
        size = np.ceil(np.log2(self.lengths)).astype(np.int64) if len(self.lengths) else self.lengths
        for power in np.unique(size[size > 0]).tolist():
            chosen = np.flatnonzero(size == power)
            places = self.starts[chosen, None] + np.arange(1 << power)
            inside = np.arange(1 << power) < self.lengths[chosen, None]
            matrix = values[np.where(inside, places, self.starts[chosen, None])]
            with np.errstate(invalid="ignore", over="ignore"):
                results = ufunc.accumulate(matrix, axis=1)
            found[places[inside]] = results[inside]
        return found

    def chain(self, times: Ints, earliest: Ints, last: Ints) -> Mask:
        """Find the rows that are taken when each run is gone through with one rule.

        The rule: a row is taken if its `earliest` is not before the time of the row taken last.

        Args:
            times: Of each row.
            earliest: Of each row; below its time, if the rule shall be strict.
            last: For each run the time that its first row is held against.
        """
        count = len(self)
        if (earliest >= self.previous(times, last)).all():
            return np.ones(count, np.bool_)
        # From each row, and from before each run, to the first row after it that would be taken: then the rows that
        # can be reached from before the runs.
        ends = np.repeat(self.starts + self.lengths, self.lengths)
        following = np.append(self._first_at_least(earliest, np.arange(1, count + 1), ends, times), count)
        begin = self._first_at_least(earliest, self.starts, self.starts + self.lengths, last)
        reached = np.zeros(count + 1, np.bool_)
        reached[begin] = True
        hops = following
        for _ in range(int(self.lengths.max()).bit_length()):
            reached[hops[reached]] = True
            hops = hops[hops]
        return reached[:count]

    @staticmethod
    def _first_at_least(values: Ints, begin: Ints, ends: Ints, bound: Ints) -> Ints:
        """First row from `begin` on, before `ends`, whose value is at least `bound`; their number if there is none."""
        count = len(values)
        tables = [values]
        while (step := 1 << (len(tables) - 1)) * 2 <= count:
            tables.append(np.maximum(tables[-1][:-step], tables[-1][step:]))
        place = begin.copy()
        for level in range(len(tables) - 1, -1, -1):
            fits = np.flatnonzero(place + (1 << level) <= ends)
            skipped = fits[tables[level][place[fits]] < bound[fits]]
            place[skipped] += 1 << level
        return np.where(place < ends, place, count)


def runs_of(slots: Ints) -> Runs:
    """Return the runs of equal slots.

    >>> runs_of(np.array([3, 3, 5])).starts.tolist()
    [0, 2]
    """
    first = np.ones(len(slots), np.bool_)
    first[1:] = slots[1:] != slots[:-1]
    return Runs(first)
