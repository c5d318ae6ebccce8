"""How a source keeps quiet while it waits for others to end their epochs.

Bytewax ends the epochs of each input by a clock of its own, and asks a source for nothing in a new epoch until all
inputs of all workers have ended the one before, and it is committed. Meanwhile the engine goes round without a pause
when the source wanted to be asked long ago: with nothing to do, two workers were measured to take 20 to 40 % of a core
each. The wait is about the same in every epoch, so a source can tell beforehand when it need not be asked.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable

__all__ = ["EpochPace"]

_WAITS = 3
_SHARE = 0.9  # of a wait is slept through: a wait that becomes shorter is seen to be


class EpochPace:
    """Says how long one source with nothing to do need not be asked.

    Its epoch ends with the first call after `interval_s`; from then on it waits for the others.

    >>> now = 0.0
    >>> pace = EpochPace(1.0, lambda: now)
    >>> for now in (1.0, 2.05, 3.1):
    ...     pace.asked()
    ...     pace.ended()
    ...     now += 0.05  # the others end theirs 50 ms later
    ...     pace.asked()
    >>> now = 4.15
    >>> pace.asked()
    >>> round(pace.pause_s(), 4)
    0.045
    """

    def __init__(self, interval_s: float, now_s: Callable[[], float] = time.monotonic) -> None:
        """Set up.

        Args:
            interval_s: Length of an epoch.
            now_s: A clock that never goes back.
        """
        self._interval_s = interval_s
        self._now_s = now_s
        self._asked_s = self._begun_s = now_s()
        self._ended_s: float | None = None
        self._waits_s: deque[float] = deque(maxlen=_WAITS)

    def asked(self) -> None:
        """Say that the engine has asked for data, before anything else is done."""
        self._asked_s = self._now_s()
        if self._ended_s is not None:
            self._waits_s.append(self._asked_s - self._ended_s)
            self._ended_s = None

    def ended(self) -> None:
        """Say that an epoch has ended (`snapshot`)."""
        self._begun_s = self._asked_s
        self._ended_s = self._now_s()

    def pause_s(self) -> float:
        """Return how long after this call a source without data need not be asked: mostly 0, at most an epoch."""
        ends = self._asked_s >= self._begun_s + self._interval_s  # the epoch, when this call returns
        if not ends or len(self._waits_s) < _WAITS:
            return 0.0
        # Never longer than an epoch: others that were slow for a while are no reason to be deaf for as long.
        return min(min(self._waits_s) * _SHARE, self._interval_s)
