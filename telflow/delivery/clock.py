"""Time as delivery sees it: a clock that only goes forward, and waiting on it."""

from __future__ import annotations

import threading
import time
from typing import Protocol

from telflow.liveness import LIVENESS

__all__ = ["Clock", "SystemClock"]


class Clock(Protocol):
    """A monotonic clock, and how long to wait on it; tests bring one that they move themselves."""

    def now_s(self) -> float:
        """Return the time in seconds."""
        ...

    def wait(self, condition: threading.Condition, until_s: float | None, *, poll_s: float | None = None) -> None:
        """Wait, holding `condition`, until it is notified or the clock shows `until_s`; for ever when None.

        Args:
            condition: What to wait on.
            until_s: When to stop waiting.
            poll_s: Come back after this time at the latest, to look at what nobody notifies of.
        """
        ...


class SystemClock:
    """The clock of the machine; setting its time of day does not move this one.

    >>> SystemClock().now_s() <= SystemClock().now_s()
    True
    """

    def now_s(self) -> float:
        """See `Clock.now_s`."""
        return time.monotonic()

    def wait(self, condition: threading.Condition, until_s: float | None, *, poll_s: float | None = None) -> None:
        """See `Clock.wait`."""
        LIVENESS.waiting()  # a worker that waits here holds its flow back on purpose
        waits = [poll_s] if poll_s is not None else []
        if until_s is not None:
            waits.append(until_s - self.now_s())
        timeout_s = min(waits, default=None)
        if timeout_s is None or timeout_s > 0:
            condition.wait(timeout_s)
