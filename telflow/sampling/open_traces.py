"""Traces that are not decided yet: what is known of each, column by column."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import numpy as np

from telflow.sampling.decider import TraceFacts
from telflow.sampling.packing import Packed
from telflow.sampling.trace_index import Ints, TraceKeys
from telflow.sampling.trace_state import UNKNOWN, Words, randomness
from telflow.sampling.trace_table import Columns, TraceTable

__all__ = ["OpenTraces"]

_FAR = 2**63 - 1
_COLUMNS: Columns = {
    "deadline": (np.int64, _FAR),
    "spans": (np.int64, 0),
    "start": (np.uint64, UNKNOWN),
    "end": (np.uint64, 0),
    "bits": (np.uint64, 0),
    "explicit": (np.uint64, UNKNOWN),
}


class OpenTraces:
    """Open traces by slot (see `TraceTable`).

    >>> traces = OpenTraces()
    >>> words = np.array([7, 8, 7], np.uint64)
    >>> slots = traces.open(TraceKeys(words, words, np.zeros(3, np.uint32)))
    >>> traces.add(slots, 5, start=words, end=words, bits=words, explicit=None)
    >>> [(tick, traces.facts(due).spans.tolist()) for tick, due in traces.due(5)]
    [(5, [2, 1])]
    """

    def __init__(self) -> None:
        self._table = TraceTable(_COLUMNS)

    def __len__(self) -> int:
        return len(self._table)

    @property
    def high(self) -> int:
        """All slots are below."""
        return self._table.high

    @property
    def deadline(self) -> Ints:
        """In which tick each trace is to be decided, by slot; where there is no trace, never."""
        return self._table["deadline"]

    @property
    def spans(self) -> Ints:
        """Number of spans of each trace, by slot; 0 where there is no trace."""
        return self._table["spans"]

    def find(self, keys: TraceKeys) -> Ints:
        """Return the slot of each row's trace, -1 where it is not open."""
        return self._table.find(keys)

    def open(self, keys: TraceKeys) -> Ints:
        """Open traces that are not; one may be given several times. Return their slots."""
        return self._table.admit(keys)

    def add(  # noqa: PLR0917 - columns
        self, slots: Ints, deadline: int, start: Words, end: Words, bits: Words, explicit: Words | None
    ) -> None:
        """Add spans to their traces; one value per span each.

        Args:
            slots: Of their traces.
            deadline: In which tick all these traces want to be decided; the earliest wish holds.
            start: Start, Unix nanoseconds.
            end: End, Unix nanoseconds.
            bits: Of `Predicates`.
            explicit: Randomness that the trace state gives; None when none of them does. Of several the lowest holds:
                spans of a trace agree, unless somebody errs, and then it must not depend on their order.
        """
        table = self._table
        self.hasten(slots, deadline)
        table["spans"][:] += np.bincount(slots, minlength=table.high)
        np.minimum.at(table["start"], slots, start)
        np.maximum.at(table["end"], slots, end)
        if explicit is not None:
            np.minimum.at(table["explicit"], slots, explicit)
        # A bit at a time: of the rows of one trace each writes the same then, so it does not matter which comes last.
        column = table["bits"]
        left = int(np.bitwise_or.reduce(bits)) if len(bits) else 0
        while left:
            bit = np.uint64(left & -left)
            column[slots[(bits & bit) != 0]] |= bit
            left &= left - 1

    def hasten(self, slots: Ints, deadline: int) -> None:
        """Let traces be decided in this tick at the latest."""
        column = self._table["deadline"]
        column[slots] = np.minimum(column[slots], deadline)

    def due(self, tick: int) -> Iterator[tuple[int, Ints]]:
        """Yield the ticks until `tick` in which traces are due, with these, the oldest first."""
        slots = np.flatnonzero(self.deadline <= tick)
        deadlines = self.deadline[slots]
        for number in np.unique(deadlines).tolist():
            yield number, self._table.in_order(slots[deadlines == number])

    def by_age(self, slots: Ints | None = None) -> Ints:
        """Return the slots of traces, or of all, the one opened first before the others."""
        return self._table.in_order(slots)

    def keys(self, slots: Ints) -> TraceKeys:
        """Return what identifies traces."""
        return self._table.keys(slots)

    def facts(self, slots: Ints) -> TraceFacts:
        """Return what is known of traces."""
        table = self._table
        return TraceFacts(
            randomness=randomness(table["low"][slots], table["explicit"][slots]),
            tenant=table["tenant"][slots],
            bits=table["bits"][slots],
            spans=table["spans"][slots],
            start_unix_nano=table["start"][slots],
            end_unix_nano=table["end"][slots],
        )

    def close(self, slots: Ints) -> None:
        """Forget traces."""
        self._table.remove(slots)

    def rescale(self, before: int, after: int) -> None:
        """Let deadlines, which were ticks of `before` nanoseconds, be ticks of `after` nanoseconds."""
        slots = self.by_age()
        self.deadline[slots] = -(-self.deadline[slots] * before // after)

    def state(self, order: Ints) -> dict[str, Packed]:
        """Return everything as plain data that later changes do not touch.

        Args:
            order: What `by_age` returned; after `restore` the trace at place i of it has the slot i.
        """
        return self._table.state(order)

    def restore(self, state: Mapping[str, Packed], translate: Callable[[Words], Words]) -> None:
        """Take over what `state` returned.

        Args:
            state: Of the same version.
            translate: Makes the bits of today's predicates of those that were saved.
        """
        self._table.restore(state)
        slots = self.by_age()
        self._table["bits"][slots] = translate(self._table["bits"][slots])
