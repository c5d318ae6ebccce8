"""A worker's life signs: progress, calls that last, waiting on purpose."""

from __future__ import annotations

import threading
import time

from telflow.liveness import Liveness


class _Worker:
    """A thread that plays the worker's: it is in a call until it is let go."""

    def __init__(self, liveness: Liveness) -> None:
        self.inside, self.leave = threading.Event(), threading.Event()
        self._liveness = liveness
        self._thread = threading.Thread(target=self._call)
        self._thread.start()
        assert self.inside.wait(10)

    def _call(self) -> None:
        self._liveness.progressed()
        self.inside.set()
        self.leave.wait(10)

    def end(self) -> None:
        self.leave.set()
        self._thread.join()


def test_a_call_that_does_not_return_is_seen_with_its_place() -> None:
    """How long the same call lasts counts from when it was first seen."""
    now = [100.0]
    liveness = Liveness(lambda: now[0])
    worker = _Worker(liveness)
    try:
        liveness.look()
        now[0] += 7
        look = liveness.look()
        assert look.call_s == 7
        assert look.progress_age_s == 7
        assert " in " in look.where
    finally:
        worker.end()
    now[0] += 1
    ended = liveness.look()
    assert (ended.call_s, ended.where) == (0, "")


def test_code_that_waits_on_purpose_does_not_hang() -> None:
    """`waiting` on the worker's own thread starts the time anew; on any other it changes nothing."""
    now = [0.0]
    liveness = Liveness(lambda: now[0])
    liveness.progressed()
    now[0] = 5.0
    other = threading.Thread(target=liveness.waiting)
    other.start()
    other.join()
    assert liveness.look().progress_age_s == 5
    liveness.waiting()
    assert liveness.look().progress_age_s == 0


def test_time_in_which_the_process_was_stopped_does_not_count() -> None:
    """Neither as a call that lasts nor as a dataflow that does not go round."""
    now = [100.0]
    liveness = Liveness(lambda: now[0])
    liveness.resumed()
    assert liveness.look().progress_age_s is None
    liveness.progressed()
    now[0] = 200.0
    liveness.resumed()
    now[0] = 201.0
    look = liveness.look()
    assert look.progress_age_s == 1
    assert look.call_s <= 1


def test_before_the_dataflow_runs_nothing_is_known() -> None:
    """No progress, no call."""
    look = Liveness(time.monotonic).look()
    assert (look.progress_age_s, look.call_s) == (None, 0)
