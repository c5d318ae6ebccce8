"""Traces that are not decided yet: what is known of each, column by column."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from telflow.sampling.decider import TraceFacts
from telflow.sampling.trace_index import Ints, TraceIndex, TraceKeys
from telflow.sampling.trace_state import UNKNOWN, Words, randomness

__all__ = ["OpenTraces"]

_FAR = 2**63 - 1
_NEW: dict[str, tuple[type, int]] = {
    "deadline": (np.int64, _FAR),
    "spans": (np.int64, 0),
    "start": (np.uint64, UNKNOWN),
    "end": (np.uint64, 0),
    "bits": (np.uint64, 0),
    "explicit": (np.uint64, UNKNOWN),
}
"""Columns, their types and what a trace without spans has there."""


class OpenTraces:
    """Traces by place (see `TraceIndex`); a lower place was opened earlier."""

    def __init__(self) -> None:
        self._index = TraceIndex()
        self._columns: dict[str, npt.NDArray[Any]] = {
            name: np.full(0, value, dtype) for name, (dtype, value) in _NEW.items()
        }

    def __len__(self) -> int:
        return len(self._index)

    @property
    def keys(self) -> TraceKeys:
        """What identifies each trace."""
        return self._index.keys

    @property
    def deadline(self) -> Ints:
        """In which tick each trace is to be decided."""
        return self._columns["deadline"]

    @property
    def spans(self) -> Ints:
        """Number of spans of each trace."""
        return self._columns["spans"]

    def add(  # noqa: PLR0917 - columns
        self,
        keys: TraceKeys,
        came: Ints,
        deadlines: Ints,
        spans: Ints,
        start: Words,
        end: Words,
        bits: Words,
        explicit: Words | None,
    ) -> Ints:
        """Add to traces what came of them, opening those that are not; return their places. One value per trace each.

        Args:
            keys: The traces.
            came: In what order they came.
            deadlines: In which tick each wants to be decided; the earliest wish holds.
            spans: Number of spans.
            start: Start of the first, Unix nanoseconds.
            end: End of the last, Unix nanoseconds.
            bits: Of `Predicates`.
            explicit: Randomness that the trace state gives; None when none of them does.
        """
        places = self._index.admit(keys, came)
        self._grow()
        columns = self._columns
        # A trace may be given more than once, see `TraceKeys.firsts`.
        np.minimum.at(columns["deadline"], places, deadlines)
        np.add.at(columns["spans"], places, spans)
        np.minimum.at(columns["start"], places, start)
        np.maximum.at(columns["end"], places, end)
        np.bitwise_or.at(columns["bits"], places, bits)
        if explicit is not None:
            np.minimum.at(columns["explicit"], places, explicit)
        return places

    def facts(self, places: Ints) -> TraceFacts:
        """Return what is known of some traces."""
        columns, keys = self._columns, self.keys
        return TraceFacts(
            randomness=randomness(keys.low[places], columns["explicit"][places]),
            tenant=keys.tenant[places],
            bits=columns["bits"][places],
            spans=columns["spans"][places],
            start_unix_nano=columns["start"][places],
            end_unix_nano=columns["end"][places],
        )

    def keep(self, places: Ints) -> None:
        """Forget all other traces: the trace at ``places[i]``, ascending, gets the place ``i``."""
        self._index.keep(places)
        self._columns = {name: column[places] for name, column in self._columns.items()}

    def rescale(self, before: int, after: int) -> None:
        """Let deadlines, which were ticks of `before` nanoseconds, be ticks of `after` nanoseconds."""
        self._columns["deadline"] = -(-self._columns["deadline"] * before // after)

    def state(self) -> dict[str, Any]:
        """Return everything as plain data that later changes do not touch."""
        return {"index": self._index.state(), **{name: column.copy() for name, column in self._columns.items()}}

    def restore(self, state: Mapping[str, Any], bits: Words) -> None:
        """Take over what `state` returned, with the bits of today's predicates."""
        self._index.restore(state["index"])
        self._columns = {name: state[name].copy() for name in _NEW} | {"bits": bits}

    def _grow(self) -> None:
        for name, (dtype, value) in _NEW.items():
            column = self._columns[name]
            new = len(self) - len(column)
            if new:
                self._columns[name] = np.concatenate([column, np.full(new, value, dtype)])
