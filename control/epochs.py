"""When sinks were flushed: the heartbeat of a dataflow."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

__all__ = ["Epochs", "Flushes"]


@dataclass(frozen=True, slots=True)
class Flushes:
    """How often a sink's partitions were flushed at the end of an epoch, and how long it took together."""

    count: int = 0
    seconds: float = 0.0


class Epochs:
    """Counts flushes; safe in any thread.

    >>> epochs = Epochs(now_s=lambda: 5.0)
    >>> epochs.flushed("gateway.console.write", 0.25)
    >>> epochs.flushes(), epochs.age_s()
    ({'gateway.console.write': Flushes(count=1, seconds=0.25)}, 0.0)
    """

    def __init__(self, now_s: Callable[[], float] = time.monotonic) -> None:
        """Begin, with no flush so far."""
        self._now_s = now_s
        self._lock = threading.Lock()
        self._flushes: dict[str, Flushes] = {}
        self._last_s: float | None = None

    def flushed(self, step_id: str, seconds: float) -> None:
        """A partition of the sink in `step_id` was flushed, which took so long."""
        with self._lock:
            before = self._flushes.get(step_id, Flushes())
            self._flushes[step_id] = Flushes(before.count + 1, before.seconds + seconds)
            self._last_s = self._now_s()

    def flushes(self) -> dict[str, Flushes]:
        """Return the counts by step."""
        with self._lock:
            return dict(self._flushes)

    def age_s(self) -> float | None:
        """Return the time since the last flush; None before the first."""
        with self._lock:
            return None if self._last_s is None else self._now_s() - self._last_s
