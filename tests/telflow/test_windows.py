"""Windows: event time, lateness and the watermark follow a row-by-row model; accumulators reduce as numpy does."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from telflow.accumulator import Accumulator, Measure, Reduce
from telflow.errors import BatchError
from telflow.windows import Closed, EventWindows, WindowShape
from tests.strategies import thorough

NOW = 10_000
MEASURES = {
    "n": Measure(Reduce.BUCKETS, width=3),
    "sum": Measure(Reduce.SUM, "float64"),
    "min": Measure(Reduce.MIN),
    "max": Measure(Reduce.MAX),
}


def _windows(**options: int) -> EventWindows:
    return EventWindows(
        MEASURES, WindowShape(**{"length_nano": 10, "lateness_nano": 5, "max_ahead_nano": 100, **options})
    )


def _feed(windows: EventWindows, rows: list[tuple[int, int, int]], now: int = NOW) -> tuple[list[Any], list[int], int]:
    """Feed (time, slot, value) rows; returns closed windows, the rows refused as late, and how many were ahead."""
    sifted = windows.sift(np.array([row[0] for row in rows], np.uint64), now)
    accepted = range(len(rows)) if sifted.accepted is None else sifted.accepted.tolist()
    assert sorted([*accepted, *sifted.late.tolist(), *sifted.ahead.tolist()]) == list(range(len(rows)))
    slots = np.array([rows[i][1] for i in accepted], np.int64)
    values = np.array([rows[i][2] for i in accepted], np.int64)
    columns = {"n": values % 3, "sum": values.astype(float), "min": values, "max": values}
    closed = [_read(found) for found in windows.add(sifted, slots, columns, slots=4)]
    return closed, sifted.late.tolist(), len(sifted.ahead)


def _read(found: Closed) -> tuple[int, dict[int, tuple[Any, ...]]]:
    window = found.window
    counts = window["n"].sum(axis=1)
    assert isinstance(found.starts, int)
    return found.starts, {
        slot: (window["n"][slot].tolist(), window["sum"][slot], window["min"][slot], window["max"][slot])
        for slot in np.flatnonzero(counts).tolist()
    }


class _Model:
    """One row at a time."""

    def __init__(self) -> None:
        self.watermark, self.high = -(10**9), 0
        self.open: dict[int, dict[int, list[int]]] = {}
        self.closed: list[Any] = []
        self.late = self.ahead = 0

    def row(self, time: int, slot: int, value: int, now: int) -> None:
        if time > now + 100:
            self.ahead += 1
            return
        self.high = max(self.high, time)
        self.watermark = max(self.watermark, min(self.high, now) - 5)
        start = time - time % 10
        if start + 10 <= self.watermark:
            self.late += 1
        else:
            self.open.setdefault(start, {}).setdefault(slot, []).append(value)
        self.close(self.watermark)

    def close(self, watermark: int) -> None:
        for start in sorted(s for s in self.open if s + 10 <= watermark):
            self.closed.append(
                (
                    start,
                    {
                        slot: ([sum(v % 3 == b for v in vs) for b in range(3)], sum(vs), min(vs), max(vs))
                        for slot, vs in sorted(self.open.pop(start).items())
                    },
                )
            )


_stream = st.lists(
    st.lists(
        st.tuples(
            st.one_of(st.integers(0, 60), st.integers(0, 400), st.integers(NOW - 20, NOW + 150), st.just(2**64 - 1)),
            st.integers(0, 3),
            st.integers(0, 1000),
        ),
        max_size=25,
    ),
    max_size=6,
)


@thorough(100)
@given(stream=_stream)
def test_columnar_windows_are_those_of_a_row_by_row_model(stream: list[list[tuple[int, int, int]]]) -> None:
    """Any disorder, any cut into batches: the same windows, the same late rows, the same refused rows."""
    windows, model = _windows(), _Model()
    closed: list[Any] = []
    late = ahead = 0
    for batch in stream:
        out, late_rows, ahead_rows = _feed(windows, batch)
        closed += out
        late += len(late_rows)
        ahead += ahead_rows
        for row in batch:
            model.row(*row, now=NOW)
        assert len(windows) == len(model.open)
    assert (late, ahead) == (model.late, model.ahead)
    closed += [_read(found) for found in windows.flush()]
    model.close(10**30)
    # A window may close while a batch is under way; within one batch they come out oldest first.
    assert sorted(closed, key=lambda w: w[0]) == sorted(model.closed, key=lambda w: w[0])


@thorough(40)
@given(rows=_stream.map(lambda s: [row for batch in s for row in batch]), cut=st.integers(1, 7))
def test_the_cut_into_batches_does_not_matter(rows: list[tuple[int, int, int]], cut: int) -> None:
    """One big batch and many small ones give the same windows: live and replayed agree."""
    whole, pieces = _windows(), _windows()
    expected = _feed(whole, rows)[0] + [_read(w) for w in whole.flush()]
    got: list[Any] = []
    for i in range(0, len(rows), cut):
        got += _feed(pieces, rows[i : i + cut])[0]
    got += [_read(w) for w in pieces.flush()]
    assert sorted(got, key=lambda w: w[0]) == sorted(expected, key=lambda w: w[0])


def test_a_batch_over_many_windows_closes_them_in_order() -> None:
    """A sparse replay may put hundreds of windows into one batch; they come out oldest first, none stays open."""
    windows = _windows()
    closed, late, _ = _feed(windows, [(t, 0, t) for t in range(0, 5000, 10)])
    assert [start for start, _ in closed] == list(range(0, 4980, 10))
    assert not late
    assert len(windows) == 2


def test_one_clock_ahead_does_not_make_the_others_late() -> None:
    """The watermark never passes the system clock, so spans of a fast clock do not close windows of the present."""
    windows = _windows()
    _feed(windows, [(NOW - 1, 0, 1), (NOW + 90, 0, 1)])
    assert _feed(windows, [(NOW - 3, 0, 1)])[1] == []
    assert windows.watermark_unix_nano == NOW - 5


def test_silence_lets_the_system_clock_close_windows() -> None:
    """The clock counts from the last row, and only after the idle time."""
    windows = _windows()
    assert windows.due_unix_nano(7) is None
    _feed(windows, [(104, 0, 1)], now=1000)
    assert windows.due_unix_nano(7) == 1000 + 11  # the window ends at 110, lateness is 5
    assert windows.due_unix_nano(30) == 1000 + 30
    assert list(windows.advance(1010)) == []
    assert [found.starts for found in windows.advance(1011)] == [100]
    assert _feed(windows, [(109, 0, 1)])[1] == [0]


def test_time_spent_stopped_is_not_silence() -> None:
    """After a restart or a stall the system clock counts anew."""
    windows = _windows()
    _feed(windows, [(104, 0, 1)], now=1000)
    other = _windows()
    other.restore(windows.state())
    other.idle_since(5000)
    assert other.due_unix_nano(7) == 5011


def test_a_flushed_window_stays_closed() -> None:
    """What comes for it afterwards is late, so that nothing is counted in two windows."""
    windows = _windows()
    assert list(windows.flush()) == []
    _feed(windows, [(104, 0, 1)])
    assert [found.starts for found in windows.flush()] == [100]
    assert _feed(windows, [(105, 0, 1), (110, 0, 1)])[1] == [0]


def test_the_state_is_a_copy_and_restores() -> None:
    """Changes after the snapshot do not show in it; a restored object goes on as the first did."""
    windows = _windows()
    _feed(windows, [(104, 0, 3), (112, 1, 4)])
    state = windows.state()
    _feed(windows, [(105, 0, 100)])
    other = _windows()
    other.restore(state)
    assert [_read(w) for w in other.flush()] == [(100, {0: ([1, 0, 0], 3, 3, 3)}), (110, {1: ([0, 1, 0], 4, 4, 4)})]


def test_slots_can_be_renumbered() -> None:
    """Open windows follow when series are forgotten."""
    windows = _windows()
    _feed(windows, [(104, 0, 3), (104, 3, 4)])
    windows.keep(np.array([3]))
    assert windows.used(1).tolist() == [True]
    (found,) = windows.open_windows()
    window = found.window
    assert (len(window), window["sum"].tolist()) == (1, [4.0])


def test_accumulators_merge_clear_and_keep() -> None:
    """Merging equals adding everything to one; cleared slots are empty; slots never reached are empty too."""
    one, other = Accumulator(MEASURES), Accumulator(MEASURES)
    values = np.array([5, 2, 8])
    columns = {"n": values % 3, "sum": values.astype(float), "min": values, "max": values}
    one.add(np.array([0, 0, 1]), columns, slots=2)
    other.add(np.array([1, 99, 99]), columns, slots=100)
    one.merge(other)
    assert (len(one), one["sum"][[0, 1, 99]].tolist(), one["min"][1], one["max"][1]) == (100, [7.0, 13.0, 10.0], 5, 8)
    one.clear(np.array([1]))
    one.keep(np.array([1, 99, 200]))
    assert (one["n"].sum(axis=1).tolist(), one["sum"].tolist()) == ([0, 2, 0], [0.0, 10.0, 0.0])
    assert one["min"][0] > one["max"][0]


def test_impossible_options_are_refused() -> None:
    """A window has a length, and times are not negative."""
    for wrong in ("length_nano", "lateness_nano", "max_ahead_nano"):
        with pytest.raises(BatchError, match="windows: expected"):
            _windows(**{wrong: -1})
    with pytest.raises(BatchError, match="expected a slide that divides 10, got 3"):
        _windows(slide_nano=3)
