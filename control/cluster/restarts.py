"""How often and how soon lost workers are started again."""

from __future__ import annotations

from collections import deque

from control.cluster.settings import RestartSettings

__all__ = ["Restarts"]

_WELL_S = 60.0


class Restarts:
    """Counts restarts on a clock that is given.

    >>> restarts = Restarts(RestartSettings(limit=3))
    >>> [restarts.next_wait_s(now_s=0.0) for _ in range(4)]
    [0.0, 0.5, 1.0, None]
    """

    def __init__(self, settings: RestartSettings) -> None:
        self._settings = settings
        self._at_s: deque[float] = deque()
        self._in_a_row = 0
        self.total = 0
        """All of them."""

    def ran(self, seconds: float) -> None:
        """Say how long the workers ran; after a minute the next restart does not wait."""
        if seconds >= _WELL_S:
            self._in_a_row = 0

    def next_wait_s(self, *, now_s: float) -> float | None:
        """Count a restart; return how long to wait before it, or None to give up."""
        while self._at_s and now_s - self._at_s[0] > self._settings.within.total_seconds():
            self._at_s.popleft()
        if len(self._at_s) >= self._settings.limit:
            return None
        self._at_s.append(now_s)
        self.total += 1
        self._in_a_row += 1
        if self._in_a_row == 1:
            return 0.0
        wait_s = self._settings.initial_interval.total_seconds() * 2 ** min(self._in_a_row - 2, 32)
        return float(min(wait_s, self._settings.max_interval.total_seconds()))
