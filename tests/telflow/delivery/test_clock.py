"""The system's clock: waits end when somebody notifies, when the time has come, or when it is time to look."""

from __future__ import annotations

import threading
import time

import pytest

from telflow.delivery.clock import SystemClock


@pytest.mark.parametrize(("until_s", "poll_s"), [(0.05, None), (None, 0.05), (60.0, 0.05), (-1.0, None)])
def test_a_wait_ends(until_s: float | None, poll_s: float | None) -> None:
    """At the moment asked for, at the next look, or at once when the moment has passed."""
    clock, condition = SystemClock(), threading.Condition()
    started_s = time.monotonic()
    with condition:
        clock.wait(condition, None if until_s is None else clock.now_s() + until_s, poll_s=poll_s)
    assert time.monotonic() - started_s < 30


def test_a_notification_ends_a_wait_without_end() -> None:
    """Nobody polls: only the notification wakes the thread."""
    clock, condition, woken = SystemClock(), threading.Condition(), threading.Event()

    def wait() -> None:
        with condition:
            clock.wait(condition, None)
        woken.set()

    threading.Thread(target=wait, daemon=True).start()
    deadline_s = time.monotonic() + 30
    while not woken.is_set() and time.monotonic() < deadline_s:
        with condition:
            condition.notify_all()
        time.sleep(0.001)
    assert woken.is_set()
