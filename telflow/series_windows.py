"""Windows per series: what every windowed aggregation shares, whatever its keys, measures and form of result.

One `SeriesWindows` belongs to one key of a stream. It numbers the series (`telflow.series`), keeps their windows
(`telflow.windows`, `telflow.session_windows`) and totals, forgets the idle ones, and hands each result to a function.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from telflow.accumulator import Accumulator, Measure, Reduce
from telflow.series import SeriesTable
from telflow.session_windows import SessionWindows
from telflow.windows import Closed, EventWindows, Ints, Sifted, Values

__all__ = ["SeriesResult", "SeriesWindows"]

_Result = TypeVar("_Result")


@dataclass(frozen=True, slots=True)
class SeriesResult:
    """A window's values of some series.

    Attributes:
        keys: Dimension values, an array per dimension; null where an overflow series does not have it.
        overflowed: Whether each is an overflow series.
        starts: Start of what each one's values cover (int64).
        ends: Its end.
        rows: Slot of each in `values`.
        values: The accumulated values; to be read at once.
        kind: `final`; `early`: the window is still open; `correction`: it was closed before, and has changed.
    """

    keys: list[pa.Array]
    overflowed: npt.NDArray[np.bool_]
    starts: Ints
    ends: Ints
    rows: Ints
    values: Accumulator
    kind: str = "final"


class SeriesWindows(Generic[_Result]):
    """Series, their windows, totals and lives.

    Args:
        dtypes: Arrow type of each dimension; the first one is kept by overflow series.
        measures: What is accumulated.
        windows: Fresh ones, over the same measures.
        emit: Makes a result of what a window gave.
        max_series: Most series held; see `SeriesTable`.
        expiry_nano: A series is forgotten this long, in event time, after its last window.
        cumulative: Results cover all since a series began, and are repeated until it expires; not for sessions.
    """

    def __init__(
        self,
        dtypes: Sequence[pa.DataType],
        measures: Mapping[str, Measure],
        windows: EventWindows | SessionWindows,
        emit: Callable[[SeriesResult], _Result],
        *,
        max_series: int,
        expiry_nano: int,
        cumulative: bool = False,
    ) -> None:
        self.windows = windows
        self.series = SeriesTable(dtypes, max_series=max_series, overflow_keeps=1)
        self._emit = emit
        self._expiry = expiry_nano
        self._cumulative = cumulative
        # Per series: start of the first and end of the last closed window with something of it.
        self._life = Accumulator({"since": Measure(Reduce.MIN), "last": Measure(Reduce.MAX)})
        self._totals = Accumulator(measures if cumulative else {})

    def add(
        self, sifted: Sifted, keys: Sequence[pa.Array], values: Mapping[str, Values] | Accumulator
    ) -> tuple[_Result, ...]:
        """Fold in the accepted rows; returns the results of what closes.

        Args:
            sifted: What sifting them gave.
            keys: Their dimension values.
            values: As `EventWindows.add` takes them.
        """
        slots = self.series.slots(keys)
        return self._results(self.windows.add(sifted, slots, values, slots=len(self.series)))

    def advance(self, now_unix_nano: int) -> tuple[_Result, ...]:
        """Let the system clock close windows, the input being silent."""
        return self._results(self.windows.advance(now_unix_nano))

    def flush(self) -> tuple[_Result, ...]:
        """Close all open windows."""
        return self._results(self.windows.flush())

    def early(self) -> tuple[_Result, ...]:
        """Results of the windows that are open, as far as they have come."""
        return tuple(self._emit(self._result(window, "early")) for window in self.windows.open_windows())

    def state(self) -> dict[str, Any]:
        """Return everything as plain data that later changes do not touch."""
        return {
            "series": self.series.state(),
            "windows": self.windows.state(),
            "life": self._life.state(),
            "totals": self._totals.state(),
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take over what `state` returned; dimensions, measures and windows must be the same."""
        self.series.restore(state["series"])
        self.windows.restore(state["windows"])
        self._life.restore(state["life"])
        self._totals.restore(state["totals"])

    def _results(self, closed: Iterable[Closed]) -> tuple[_Result, ...]:
        results = tuple(self._emit(self._result_of(window)) for window in closed)
        if results:
            self._forget()
        return results

    def _result_of(self, closed: Closed) -> SeriesResult:
        if closed.correction:
            return self._result(closed, "correction")
        slots = closed.slots
        starts, ends = np.broadcast_to(closed.starts, len(slots)), np.broadcast_to(closed.ends, len(slots))
        self._life.grow(len(self.series))
        expired = slots[self._life["last"][slots] <= starts - self._expiry]
        self._life.clear(expired)
        self._life.add(slots, {"since": starts, "last": ends}, slots=len(self.series))
        if not self._cumulative:
            return self._result(closed, "final")
        end = int(np.max(closed.ends))
        self._totals.grow(len(self.series))
        self._totals.clear(expired)
        self._totals.forget_exemplars()
        self._totals.merge(closed.window)
        alive = np.flatnonzero(self._life["last"] > end - self._expiry)
        return self._result(Closed(self._life["since"][alive], end, alive, alive, self._totals), "final")

    def _result(self, closed: Closed, kind: str) -> SeriesResult:
        slots = closed.slots
        return SeriesResult(
            self.series.decode(slots),
            self.series.overflowed[slots],
            np.broadcast_to(closed.starts, len(slots)),
            np.broadcast_to(closed.ends, len(slots)),
            closed.rows,
            closed.window,
            kind,
        )

    def _forget(self) -> None:
        """Drop the series that have expired; between windows only, as slots change."""
        self._life.grow(len(self.series))
        last = self._life["last"]
        dead = (last <= last.max(initial=-(2**62)) - self._expiry) & ~self.windows.used(len(last))
        if dead.any():
            alive = np.flatnonzero(~dead)
            self.series.keep(alive)
            self.windows.keep(alive)
            self._life.keep(alive)
            self._totals.keep(alive)
